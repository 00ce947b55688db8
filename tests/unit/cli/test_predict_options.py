"""What the command line says of searches takes the place of what came with the model."""

import argparse
from dataclasses import replace

import pytest

from seg_research.cli.predict import _identity, _with_options, add_arguments
from seg_research.recipes.seg_research.settings import SegResearchSettings
from seg_research.search.settings import SearchSettings

STORED = SegResearchSettings(
    search=SearchSettings(url="http://trained:1", browse=True, deadline_s=9.0, top_k_text=3)
)
REQUIRED = ["--data", "data.parquet", "--scripted", "expert", "--out", "out.jsonl"]


def chosen(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([*REQUIRED, *words])


def test_evaluation_searches_as_training_did_unless_told_otherwise():
    assert _with_options(STORED, chosen()) == STORED


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["--no-browse"], {"browse": False}),
        (["--top-k-text", "5", "--body-chars", "80"], {"top_k_text": 5, "body_chars": 80}),
        (["--deadline-s", "2"], {"deadline_s": 2.0}),
        (["--search-url", "http://here:2"], {"url": "http://here:2"}),
        (["--text", "corpus.jsonl"], {"url": None}),
    ],
)
def test_an_option_replaces_one_setting(words, changes):
    expected = replace(STORED, search=replace(STORED.search, **changes))
    assert _with_options(STORED, chosen(*words)) == expected


def test_another_address_of_the_server_is_no_other_run(tmp_path):
    data = tmp_path / "data.parquet"
    data.write_bytes(b"rows")
    options = chosen("--data", str(data))
    moved = replace(STORED, search=replace(STORED.search, url="http://elsewhere:3"))
    other = replace(STORED, search=replace(STORED.search, top_k_text=1))
    assert _identity(options, moved) == _identity(options, STORED)
    assert _identity(options, other) != _identity(options, STORED)

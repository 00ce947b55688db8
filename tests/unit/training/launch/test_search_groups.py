"""Choosing where a run searches: one word on the command line, no corpus, no key needed to look at
the plan.
"""

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

from seg_common.errors import UsageError
from seg_research.cli.main import main
from seg_research.cli.search_server import web_options
from seg_research.training.launch.config import compose_config

PLACES = ["data.train_files=a", "data.val_files=b", "actor_rollout_ref.model.path=m"]
PROVIDERS = ["serper", "tavily", "searxng", "duckduckgo"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_is_chosen_by_its_name(provider):
    config = compose_config(
        [
            f"search={provider}",
            "seg.search.max_calls_per_run=7",
            "seg.search.cache_file=c.sqlite",
            *PLACES,
        ]
    )
    options = web_options(config.seg.search, run_name=config.seg.run_dir)
    assert options[:4] == ["--provider", provider, "--run-name", config.seg.run_dir]
    assert options[4:] == ["--cache-file", "c.sqlite", "--max-calls-per-run", "7"]


def test_a_place_to_search_is_required():
    with pytest.raises(UsageError, match=r"search=serper"):
        compose_config(PLACES)


def test_a_dry_run_shows_the_provider_and_needs_no_key(
    mini, tiny_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("SERPER_API_KEY", raising=False)
    given = {
        "data.train_files": mini.parquet("train"),
        "data.val_files": mini.parquet("val"),
        "actor_rollout_ref.model.path": tiny_folder,
        "search": "serper",
        "seg.run_dir": tmp_path / "run",
        "data.train_batch_size": 4,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
        "trainer.total_training_steps": 4,
    }
    assert main(["train", "--dry-run", *(f"{key}={value}" for key, value in given.items())]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["seg.search.provider", "serper", "search/serper.yaml"] in lines
    assert not (tmp_path / "run").exists()

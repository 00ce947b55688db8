"""`seg-research cache`: what a recording holds, as one file, from one machine to another."""

import asyncio

import pytest

from retrieval_server.cache import CachedSearch, Key
from retrieval_server.cache_file import CacheMode, SqliteCache
from retrieval_server.schemas import CollectionKind
from retrieval_server.sources import SearchResult
from seg_research.cli.main import main


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "searches.sqlite"
    cache = SqliteCache(path, mode=CacheMode.RECORD, clock=lambda: 0.0)
    for n in range(3):
        answer = CachedSearch(
            (SearchResult("a", "title", "text", "https://example.com", 1.0, b"jpeg"),)
        )
        asyncio.run(cache.put(Key.of("serper", CollectionKind.IMAGE, str(n), 1), answer))
    cache.close()
    return path


def test_stats(recording, capsys):
    assert main(["cache", "stats", str(recording)]) == 0
    shown = capsys.readouterr().out
    assert "3 answers, 1 images" in shown
    assert "serper image: 3" in shown
    assert "from 1970-01-01 00:00" in shown


def test_export_and_import(recording, tmp_path, capsys):
    exported, merged = tmp_path / "exported.sqlite", tmp_path / "merged.sqlite"
    assert main(["cache", "export", str(recording), str(exported)]) == 0
    assert main(["cache", "import", str(merged), str(exported)]) == 0
    assert main(["cache", "import", str(merged), str(exported)]) == 0
    shown = capsys.readouterr().out
    assert "3 of 3 answers were missing or older" in shown
    assert "0 of 3 answers were missing or older" in shown
    assert main(["cache", "stats", str(merged)]) == 0
    assert "3 answers, 1 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["stats", "none"], ["export", "none", "to"], ["import", "to", "none"]]
)
def test_a_missing_file_is_one_line(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["cache", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "none: no such cache file" in said

"""Which server a command gets, and what a training run tells a server about the web."""

import contextlib

import pytest

from retrieval_server.options import add_arguments, settings_from
from seg_common.errors import UsageError
from seg_research.cli.search_server import search_server, web_options

NOTHING = dict.fromkeys(
    (
        "cache_mode",
        "cache_file",
        "max_calls_per_run",
        "max_usd_per_run",
        "max_calls_per_day",
        "max_usd_per_day",
    )
)


def search(**changed):
    return {"provider": None, "browse": False, **NOTHING, **changed}


def test_without_a_provider_there_are_no_options():
    assert web_options(search(browse=True, max_calls_per_run=5), run_name="r") == []


def test_options_are_ones_the_server_understands():
    import argparse

    whole = search(
        provider="serper",
        browse=True,
        cache_mode="record",
        cache_file="c.sqlite",
        max_calls_per_run=5,
        max_usd_per_run=0.5,
    )
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    web = settings_from(parser.parse_args(web_options(whole, run_name="outputs/run"))).web
    assert (
        web.provider,
        web.browse,
        web.cache_mode,
        web.calls_per_run,
        web.usd_per_run,
        web.run,
    ) == (
        "serper",
        True,
        "record",
        5,
        0.5,
        "outputs/run",
    )


def test_the_web_alone_starts_a_server(monkeypatch):
    started = []

    @contextlib.contextmanager
    def running(text, images, *, options):
        started.append((text, images, list(options)))
        yield "http://127.0.0.1:1"

    monkeypatch.setattr("seg_research.cli.search_server.running_server", running)
    with search_server(None, None, None, ["--provider", "serper"]) as url:
        assert url == "http://127.0.0.1:1"
    assert started == [(None, None, ["--provider", "serper"])]


def test_nothing_to_search_is_a_usage_error():
    with (
        pytest.raises(UsageError, match="a search server is needed"),
        search_server(None, None, None),
    ):
        pass

"""From the command line to a server that searches the web: what is refused, and one whole server
against a provider of this machine.
"""

import asyncio

import pytest

from retrieval_server.schemas import CollectionKind
from retrieval_server.sources import NotRecordedError
from retrieval_server.web import options as web_options
from retrieval_server.web.factory import open_web
from retrieval_server.web.provider_defaults import PROVIDERS
from seg_common.arguments import Parser
from seg_common.errors import UsageError

from .conftest import reply

KEY = "k3y-that-must-not-leak"
SEARXNG = {
    "results": [
        {
            "url": "https://a.example.com/1",
            "title": "Velmora",
            "content": "A harbour town.",
            "score": 2.0,
        }
    ]
}


@pytest.fixture(autouse=True)
def _clean(monkeypatch, tmp_path):
    for name in (
        "SERPER_API_KEY",
        "TAVILY_API_KEY",
        "SEARXNG_URL",
        "SUMMARY_API_URL",
        "SUMMARY_MODEL",
        "SUMMARY_API_KEY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def parse(*arguments):
    parser = Parser()
    web_options.add_arguments(parser)
    return web_options.settings_from(parser.parse_args(list(arguments)))


def test_without_a_provider_there_is_no_web():
    assert parse() is None


def test_every_option_arrives():
    arguments = (
        "--provider serper --provider-url https://p.example.com --send-key --provider-rate 3"
        " --provider-concurrency 2 --usd-per-call 0.002 --max-calls-per-day 10 --max-usd-per-day 1"
        " --max-calls-per-run 20 --max-usd-per-run 2 --run-name r --spend-file s.sqlite"
        " --cache-mode record --cache-file c.sqlite --cache-ttl-days 2 --browse --browse-pages 4"
        " --page-chars 500"
    )
    settings = parse(*arguments.split())
    default = web_options.WebSettings("serper")
    unchanged = [
        name
        for name in default.__dataclass_fields__
        if getattr(settings, name) == getattr(default, name)
    ]
    assert unchanged == ["provider"]
    assert settings.ttl_s == 2 * 86_400


REFUSED = [
    ("--browse", "name a --provider"),
    ("--cache-file c.sqlite", "name a --provider"),
    ("--provider serper --cache-mode replay", "--cache-file"),
    ("--provider serper --provider-rate 0", "above 0"),
    ("--provider serper --provider-rate nan", "above 0"),
    ("--provider serper --max-calls-per-day -1", "at least 0"),
    ("--provider serper --max-usd-per-run inf", "at least 0"),
    ("--provider serper --browse-pages 0", "at least 1"),
    ("--provider serper --page-chars -5", "at least 1"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED)
def test_contradictions_are_usage_errors(arguments, said):
    with pytest.raises(UsageError, match=said):
        parse(*arguments.split())


def test_a_cache_file_alone_means_recording():
    assert parse("--provider", "serper", "--cache-file", "c.sqlite").cache_mode == "record"
    assert parse("--provider", "serper").cache_mode == "off"


@pytest.mark.parametrize("name", ["serper", "tavily", "searxng"])
def test_a_missing_key_says_where_to_get_one(name):
    facts = PROVIDERS[name]
    with pytest.raises(UsageError) as raised:
        open_web(web_options.WebSettings(name), None)
    message = str(raised.value)
    assert (facts.key_env or facts.url_env) in message
    assert "https://" in message
    assert "\n" not in message


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", "\x1b[31m"])
def test_a_key_that_is_none_is_not_shown(key, monkeypatch):
    monkeypatch.setenv("SERPER_API_KEY", key)
    with pytest.raises(UsageError, match="characters that no key has") as raised:
        web_options.WebSettings("serper").key()
    assert key not in str(raised.value)


def test_a_key_goes_to_a_stranger_only_if_that_is_meant(monkeypatch):
    monkeypatch.setenv("SERPER_API_KEY", KEY)
    assert web_options.WebSettings("serper").key() == KEY
    elsewhere = {"provider": "serper", "provider_url": "https://proxy.example.com"}
    with pytest.raises(UsageError, match="add --send-key") as raised:
        web_options.WebSettings(**elsewhere).key()
    assert KEY not in str(raised.value)
    assert web_options.WebSettings(**elsewhere, send_key=True).key() == KEY
    assert web_options.WebSettings("serper", provider_url="https://google.serper.dev/").key() == KEY
    with pytest.raises(UsageError, match="add --send-key"):
        web_options.WebSettings(
            "serper", provider_url="https://google.serper.dev.evil.example.com/"
        ).key()


def test_a_key_does_not_travel_unencrypted(monkeypatch):
    monkeypatch.setenv("SERPER_API_KEY", KEY)
    with pytest.raises(UsageError, match="unencrypted"):
        web_options.WebSettings("serper", provider_url="http://google.serper.dev").key()
    assert (
        web_options.WebSettings("serper", provider_url="http://127.0.0.1:9", send_key=True).key()
        == KEY
    )


BAD_ADDRESSES = [
    "ftp://a",
    "http://",
    "a.com",
    "http://u:p@a.com",
    "http://a.com?x",
    "http://a b",
    "http://a:x",
    "http://ä.com",
]


@pytest.mark.parametrize("url", BAD_ADDRESSES)
def test_an_address_that_is_none(url):
    with pytest.raises(UsageError, match="--provider-url"):
        _ = web_options.WebSettings("searxng", provider_url=url).url


def test_duckduckgo_has_no_address():
    with pytest.raises(UsageError, match="leave this option out"):
        _ = web_options.WebSettings("duckduckgo", provider_url="https://a.com").url


def serper_at(server, tmp_path, **options):
    return web_options.WebSettings(
        "serper",
        provider_url=server.url,
        send_key=True,
        spend_file=tmp_path / "s.sqlite",
        **options,
    )


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_told_at_start(status, local_server, tmp_path, monkeypatch):
    monkeypatch.setenv("SERPER_API_KEY", KEY)
    local_server.replies(reply(status, {"message": f"bad key {KEY}"}))
    with pytest.raises(
        UsageError, match=r"the key in SERPER_API_KEY is refused .*https://serper\.dev"
    ) as raised:
        await asyncio.to_thread(open_web, serper_at(local_server, tmp_path), None)
    assert KEY not in str(raised.value)
    assert [asked.target for asked in local_server.asked] == ["/account"]


@pytest.mark.parametrize("raw", [reply(500), reply(404), reply(200, "<html>"), b""])
async def test_a_check_that_says_nothing_stops_nobody(
    raw, local_server, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("SERPER_API_KEY", KEY)
    local_server.replies(raw)
    web = await asyncio.to_thread(open_web, serper_at(local_server, tmp_path), None)
    await web.close()
    assert "could not be checked" in caplog.text
    assert KEY not in caplog.text


async def test_the_parts_work_together_and_a_recording_needs_no_key(
    local_server, tmp_path, monkeypatch, caplog
):
    from retrieval_server.service import Service

    caplog.set_level("DEBUG")
    monkeypatch.setenv("SERPER_API_KEY", KEY)
    local_server.replies(
        reply(
            200,
            {
                "organic": [
                    {"title": "Velmora", "link": "https://a.example.com/", "snippet": "A town."}
                ]
            },
        )
    )
    settings = serper_at(
        local_server,
        tmp_path,
        cache_mode="record",
        cache_file=tmp_path / "c.sqlite",
        calls_per_run=1,
    )
    web = await asyncio.to_thread(open_web, settings, None)
    service = Service(web.routes, on_stop=web.close)
    first = await service.find("who", CollectionKind.TEXT, 3)
    again = await service.find(" who ", CollectionKind.TEXT, 3, browse=False)
    browsed = await service.find("who", CollectionKind.TEXT, 3, browse=True)
    spent = await service.find("another", CollectionKind.TEXT, 3)
    assert (first.answer.hits[0].title, first.cached, again.cached, first.provider) == (
        "Velmora",
        False,
        True,
        "serper",
    )
    assert "does not read pages" in browsed.answer.note
    assert (spent.answer.hits, spent.answer.note) == (
        (),
        "this run's search budget of 1 calls is used up",
    )
    assert web.counts()["upstream_calls"] == 1
    await service.stop()
    assert KEY not in caplog.text + web.summary
    assert all(
        KEY.encode() not in path.read_bytes() for path in tmp_path.iterdir() if path.is_file()
    )

    monkeypatch.delenv("SERPER_API_KEY")
    local_server.asked.clear()
    replay = open_web(
        web_options.WebSettings("serper", cache_mode="replay", cache_file=tmp_path / "c.sqlite"),
        None,
    )
    service = Service(replay.routes, on_stop=replay.close)
    assert (await service.find("who", CollectionKind.TEXT, 3)).answer == first.answer
    with pytest.raises(NotRecordedError, match="'another'"):
        await service.find("another", CollectionKind.TEXT, 3)
    await service.stop()
    assert local_server.asked == []


def test_browsing_needs_an_encoder(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match="needs an encoder"):
        open_web(
            web_options.WebSettings("duckduckgo", browse=True, spend_file=tmp_path / "s.sqlite"),
            None,
        )


@pytest.mark.parametrize(
    ("url", "model"), [("http://a/v1", ""), ("ftp://a", "m"), ("nonsense", "m")]
)
def test_a_summary_model_must_be_named_whole(url, model, monkeypatch, tmp_path, encoder):
    monkeypatch.setenv("SUMMARY_API_URL", url)
    monkeypatch.setenv("SUMMARY_MODEL", model)
    with pytest.raises(UsageError, match="SUMMARY_MODEL"):
        open_web(
            web_options.WebSettings("duckduckgo", browse=True, spend_file=tmp_path / "s.sqlite"),
            encoder,
        )


async def test_a_whole_server_searches_the_web_for_a_client(local_server, tmp_path):
    from retrieval_server.server import running_server
    from seg_research.search.client import SearchClient

    local_server.answer = lambda asked: reply(200, SEARXNG)
    options = [
        "--provider",
        "searxng",
        "--provider-url",
        local_server.url,
        "--max-calls-per-run",
        "2",
        "--provider-rate",
        "1000",
    ]
    options += [
        "--cache-file",
        str(tmp_path / "c.sqlite"),
        "--spend-file",
        str(tmp_path / "s.sqlite"),
    ]
    starting = running_server(None, options=options)
    url = await asyncio.to_thread(starting.__enter__)
    try:
        async with SearchClient(url) as client:
            outcomes = await asyncio.gather(*(client.search("who", "text", 3) for _ in range(50)))
            await client.search("what", "text", 3)
            spent = await client.search("why", "text", 3)
    finally:
        await asyncio.to_thread(starting.__exit__, None, None, None)
    assert {outcome.hits[0].title for outcome in outcomes} == {"Velmora"}
    assert len([asked for asked in local_server.asked if "q=who" in asked.target]) == 1
    assert spent.note == "this run's search budget of 2 calls is used up"

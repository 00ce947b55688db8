"""One search from request to reply: single flight, cache, failures that are not kept, deadlines,
browsing, replay.
"""

import asyncio
import base64

import pytest

from retrieval_server.cache import CachedSearch, Key, MemoryCache
from retrieval_server.cache_file import CacheMode, SqliteCache
from retrieval_server.schemas import CollectionKind, SearchRequest
from retrieval_server.service import Reading, Route, Service
from retrieval_server.sources import (
    BudgetExhaustedError,
    DeadlineError,
    NotRecordedError,
    RefusedError,
    SearchResult,
    UnavailableError,
)

TEXT, IMAGE = CollectionKind.TEXT, CollectionKind.IMAGE


def found(name, image=None):
    return SearchResult(name, name, f"about {name}", f"https://example.com/{name}", 0.5, image)


class Source:
    name, kinds = "web", frozenset(CollectionKind)

    def __init__(self, *says, gate=None):
        self.says, self.asked, self.gate, self.cancelled = list(says), [], gate, 0

    async def find(self, query, kind, top_k):
        self.asked.append((query, kind, top_k))
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(said, Exception):
            raise said
        return said


class Browser:
    fingerprint = "browse v1"

    def __init__(self, num_read=1):
        self.num_read, self.asked = num_read, []

    async def read(self, query, hits):
        self.asked.append(query)
        return Reading(
            tuple(found(f"page of {hit.title}") for hit in hits),
            self.num_read,
            None if self.num_read else "no page could be read",
        )


def service(source, cache="memory", **options):
    route = Route(source, MemoryCache() if cache == "memory" else cache, **options)
    return Service(dict.fromkeys(CollectionKind, route), default_top_k=3)


async def titles(serving, query="who", kind=TEXT, **options):
    return [hit.title for hit in (await serving.find(query, kind, 3, **options)).answer.hits]


async def test_a_request_becomes_a_response():
    source = Source([found("a", b"jpeg"), found("b")])
    serving = service(source)
    reply = await serving.search(SearchRequest(query=" who  is ", kind="image"))
    assert [hit.title for hit in reply.hits] == ["a", "b"]
    assert reply.hits[0].image == "data:image/jpeg;base64," + base64.b64encode(b"jpeg").decode()
    assert (reply.hits[1].image, reply.provider, reply.cached, reply.note) == (
        None,
        "web",
        False,
        None,
    )
    assert source.asked == [("who is", IMAGE, 3)]
    again = await serving.search(SearchRequest(query="who is", kind="image", top_k=3))
    assert (again.cached, again.hits) == (True, reply.hits)
    assert len(source.asked) == 1
    assert (
        serving.counts["searches"],
        serving.counts["cache_hits"],
        serving.counts["source_calls"],
    ) == (2, 1, 1)


async def test_a_thousand_identical_questions_are_one_call():
    gate = asyncio.Event()
    source = Source([found("a")], gate=gate)
    serving = service(source)
    waiting = [asyncio.create_task(titles(serving)) for _ in range(1000)]
    while not source.asked:
        await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*waiting) == [["a"]] * 1000
    assert len(source.asked) == 1
    assert serving.counts["joined"] == 999


@pytest.mark.parametrize("cache", ["memory", None])
async def test_single_flight_needs_no_cache_and_other_questions_fly_alone(cache):
    gate = asyncio.Event()
    source = Source([found("a")], gate=gate)
    serving = service(source, cache)
    waiting = [
        asyncio.create_task(titles(serving, query)) for query in ("one", "two", "one", "two")
    ]
    await asyncio.sleep(0.01)
    gate.set()
    await asyncio.gather(*waiting)
    assert [query for query, _, _ in source.asked] == ["one", "two"]
    await titles(serving, "one")
    assert len(source.asked) == (2 if cache else 3)


@pytest.mark.parametrize(
    "error",
    [
        UnavailableError("down"),
        RefusedError("no"),
        BudgetExhaustedError("spent"),
        ValueError("bug"),
    ],
)
async def test_a_failure_is_shared_and_forgotten(error):
    gate = asyncio.Event()
    source = Source(error, [found("a")], gate=gate)
    serving = service(source)
    waiting = [asyncio.create_task(serving.find("who", TEXT, 3)) for _ in range(50)]
    while not source.asked:
        await asyncio.sleep(0)
    gate.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert len(source.asked) == 1
    if isinstance(error, BudgetExhaustedError):
        assert {reply.answer for reply in answers} == {CachedSearch((), "spent")}
    else:
        assert {type(answer) for answer in answers} == {type(error)}
    assert await titles(serving) == ["a"]


async def test_nothing_found_is_an_answer_that_is_kept():
    source = Source([])
    serving = service(source)
    assert await titles(serving) == await titles(serving) == []
    assert len(source.asked) == 1


async def test_images_that_could_not_be_had_are_not_kept():
    source = Source([found("a")], [found("a", b"jpeg")])
    serving = service(source)
    first = await serving.find("who", IMAGE, 3)
    assert (first.answer.hits[0].image, first.answer.note) == (
        None,
        "none of the images could be fetched",
    )
    assert (await serving.find("who", IMAGE, 3)).answer.hits[0].image == b"jpeg"
    assert (await serving.find("who", IMAGE, 3)).cached


async def test_a_deadline_is_kept_and_the_paid_search_goes_on():
    gate = asyncio.Event()
    source = Source([found("a")], gate=gate)
    serving = service(source, finishes_alone=True)
    with pytest.raises(DeadlineError, match=r"deadline of 0\.01 s"):
        await serving.find("who", TEXT, 3, deadline_s=0.01)
    gate.set()
    assert await titles(serving) == ["a"]
    assert (len(source.asked), source.cancelled) == (1, 0)
    assert serving.counts["past_deadline"] == 1


async def test_a_search_that_nobody_waits_for_ends_where_it_costs_nothing():
    gate = asyncio.Event()
    source = Source([found("a")], gate=gate)
    serving = service(source)
    patient = asyncio.create_task(titles(serving))
    await asyncio.sleep(0)
    with pytest.raises(DeadlineError):
        await serving.find("who", TEXT, 3, deadline_s=0.01)
    assert source.cancelled == 0  # somebody still waits
    patient.cancel()
    await asyncio.gather(patient, return_exceptions=True)
    await asyncio.sleep(0.01)
    assert source.cancelled == 1
    gate.set()
    assert await titles(serving) == ["a"]


async def test_pages_are_read_on_request_and_the_plain_search_is_shared():
    source, browser = Source([found("a")]), Browser()
    serving = service(source, browser=browser)
    assert await titles(serving, browse=True) == ["page of a"]
    assert await titles(serving, browse=True) == ["page of a"]
    assert await titles(serving) == ["a"]
    assert (len(source.asked), len(browser.asked)) == (1, 1)
    await titles(serving, kind=IMAGE, browse=True)
    assert len(browser.asked) == 1


async def test_pages_that_could_not_be_read_are_not_kept():
    source, browser = Source([found("a")]), Browser(num_read=0)
    serving = service(source, browser=browser)
    assert (await serving.find("who", TEXT, 3, browse=True)).answer.note == "no page could be read"
    browser.num_read = 1
    assert (await serving.find("who", TEXT, 3, browse=True)).answer.note is None
    assert (len(source.asked), len(browser.asked)) == (1, 2)


async def test_nothing_found_is_not_browsed():
    browser = Browser()
    assert await titles(service(Source([]), browser=browser), browse=True) == []
    assert browser.asked == []


async def test_an_exhausted_budget_is_told_through_browsing_too():
    reply = await service(Source(BudgetExhaustedError("spent")), browser=Browser()).find(
        "who", TEXT, 3, browse=True
    )
    assert reply.answer == CachedSearch((), "spent")


@pytest.fixture
async def recording(tmp_path):
    path = tmp_path / "r.sqlite"
    cache = SqliteCache(path, mode=CacheMode.RECORD)
    serving = service(Source([found("a")]), cache, browser=Browser())
    await serving.find("known", TEXT, 3)
    await serving.find("read", TEXT, 3, browse=True)
    cache.close()
    return path


async def test_a_recording_is_replayed_without_asking_anybody(recording):
    cache = SqliteCache(recording, mode=CacheMode.REPLAY)
    source, browser = Source(AssertionError("asked")), Browser()
    serving = service(source, cache, replay=True, browser=browser)
    assert await titles(serving, "known") == ["a"]
    assert await titles(serving, "read", browse=True) == ["page of a"]
    with pytest.raises(
        NotRecordedError, match=r"replays a recording, which holds no text search for 'unknown'"
    ) as raised:
        await serving.find("unknown", TEXT, 3)
    assert raised.value.status == 422
    with pytest.raises(NotRecordedError, match="image search for 'known'"):
        await serving.find("known", IMAGE, 3)
    plain = await serving.find("known", TEXT, 3, browse=True)
    assert (plain.answer.hits[0].title, plain.answer.note) == (
        "a",
        "the pages of this search were not recorded; these are its snippets",
    )
    assert (source.asked, browser.asked) == ([], [])
    cache.close()


async def test_stopping_ends_searches_and_releases_everything():
    released = []

    async def release():
        released.append(True)

    source = Source([], gate=asyncio.Event())
    serving = Service({TEXT: Route(source, finishes_alone=True)}, on_stop=release)
    waiting = asyncio.create_task(serving.find("who", TEXT, 3))
    await asyncio.sleep(0.01)
    await serving.stop()
    with pytest.raises(UnavailableError, match="shutting down"):
        await waiting
    assert released == [True]
    assert source.cancelled == 1


async def test_what_cannot_be_searched_is_a_key_error():
    serving = Service({TEXT: Route(Source([]))})
    assert serving.kinds == {TEXT}
    with pytest.raises(KeyError):
        await serving.find("who", IMAGE, 3)


async def test_settings_of_a_source_are_part_of_the_question():
    cache = MemoryCache()
    await titles(service(Source([found("english")]), cache, options="hl=en"))
    assert await titles(service(Source([found("french")]), cache, options="hl=fr")) == ["french"]
    assert cache.look(Key.of("web", TEXT, "who", 3, "hl=en")).hits[0].title == "english"

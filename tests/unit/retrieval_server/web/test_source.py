"""How a provider is asked: retries, pauses, turns, budget, images. The provider is a script; time
does not pass.
"""

import asyncio

import pytest

from retrieval_server.schemas import CollectionKind
from retrieval_server.sources import (
    BudgetExhaustedError,
    QueryError,
    RefusedError,
    UnavailableError,
)
from retrieval_server.web import source as source_module
from retrieval_server.web.budget_ledger import Budget, Ledger
from retrieval_server.web.limiter import Limiter
from retrieval_server.web.provider import CallError, KeyRefusedError, WebHit
from retrieval_server.web.source import WebSource

TEXT, IMAGE = CollectionKind.TEXT, CollectionKind.IMAGE


def hit(name, *images):
    return WebHit(name, f"about {name}", f"https://example.com/{name}", 1.0, images)


class Scripted:
    """Plays what it was given, the last one for ever; errors are raised."""

    name, kinds, max_results = "scripted", frozenset(CollectionKind), 10

    def __init__(self, *says):
        self.says, self.asked = list(says), []

    async def ask(self, query, kind, num):
        self.asked.append((query, kind, num))
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(said, Exception):
            raise said
        return said

    async def check(self): ...
    async def close(self): ...


def busy(retry_after_s=0.0):
    return CallError(UnavailableError("busy", retry_after_s=retry_after_s), retryable=True)


@pytest.fixture
def pauses(monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(source_module.asyncio, "sleep", sleep)
    return slept


@pytest.fixture
def make(tmp_path):
    ledgers = []

    def build(provider, *, budget=None, images=None, rate=1e6, concurrency=8, **options):
        ledger = Ledger(
            tmp_path / "spend.sqlite",
            provider.name,
            usd_per_call=0.001,
            budget=budget or Budget(),
            run="r",
        )
        ledgers.append(ledger)

        async def get_image(address):
            return (images or {}).get(address)

        limiter = Limiter(
            provider.name, rate_per_s=rate, concurrency=concurrency, **options.pop("limiter", {})
        )
        return WebSource(
            provider, limiter=limiter, ledger=ledger, get_image=get_image, **options
        ), ledger

    yield build
    for ledger in ledgers:
        ledger.close()


async def test_results_become_findings(make):
    source, _ = make(
        Scripted(
            [
                hit("a"),
                hit("a"),
                WebHit("", "", "https://example.com/empty", 1.0),
                hit("b"),
                hit("c"),
            ]
        )
    )
    found = await source.find("who", TEXT, 2)
    assert [(one.title, one.text, one.source, one.image) for one in found] == [
        ("a", "about a", "https://example.com/a", None),
        ("b", "about b", "https://example.com/b", None),
    ]


async def test_no_more_is_asked_for_than_one_call_gives(make):
    provider = Scripted([])
    source, _ = make(provider)
    await source.find("who", TEXT, 100)
    await source.find("who", TEXT, 2)
    await source.find("who", IMAGE, 1)
    assert [num for _, _, num in provider.asked] == [10, 2, 6]


async def test_what_may_pass_is_tried_again_with_growing_jittered_pauses(make, pauses):
    provider = Scripted(busy(), busy(), busy(), [hit("a")])
    source, ledger = make(provider)
    assert len(await source.find("who", TEXT, 3)) == 1
    assert source.counts["upstream_calls"] == 4
    assert source.counts["upstream_retries"] == 3
    between = [pause for pause in pauses if pause > 0.01]
    assert [0.25 <= between[0] <= 0.5, 0.5 <= between[1] <= 1.0, 1.0 <= between[2] <= 2.0] == [
        True
    ] * 3
    assert (await ledger.spent())["day"].calls == 1  # those that failed were not charged for


async def test_attempts_end(make, pauses):
    provider = Scripted(busy())
    source, ledger = make(provider)
    with pytest.raises(UnavailableError, match="busy"):
        await source.find("who", TEXT, 3)
    assert len(provider.asked) == 4
    assert (await ledger.spent())["day"].calls == 0


@pytest.mark.parametrize(
    "error",
    [KeyRefusedError("no"), RefusedError("no"), BudgetExhaustedError("no"), QueryError("no")],
)
async def test_what_will_not_pass_is_not_tried_again(error, make):
    provider = Scripted(CallError(error))
    source, _ = make(provider)
    with pytest.raises(type(error), match="no"):
        await source.find("who", TEXT, 3)
    assert len(provider.asked) == 1


async def test_a_refused_key_is_not_shown_again_for_a_while(make):
    provider = Scripted(CallError(KeyRefusedError("no")))
    source, _ = make(provider)
    for _ in range(100):
        with pytest.raises(KeyRefusedError):
            await source.find("who", TEXT, 3)
    assert len(provider.asked) == 1


async def test_a_bad_query_says_nothing_about_the_next(make):
    provider = Scripted(CallError(QueryError("no")), [hit("a")])
    source, _ = make(provider)
    with pytest.raises(QueryError):
        await source.find("bad", TEXT, 3)
    assert await source.find("good", TEXT, 3)


async def test_retry_after_holds_for_everybody(make, pauses):
    provider = Scripted(busy(7.0), [hit("a")])
    source, _ = make(provider)
    await source.find("one", TEXT, 3)
    await source.find("another", TEXT, 3)
    # The limiter waits as well, which matters to whoever comes in the meantime.
    assert [round(pause) for pause in pauses if pause > 1] == [7, 7, 7]


async def test_a_pause_beyond_the_time_left_is_told_at_once(make, pauses):
    provider = Scripted(busy(600.0))
    source, _ = make(provider)
    with pytest.raises(UnavailableError) as raised:
        await source.find("who", TEXT, 3)
    assert raised.value.retry_after_s == 600.0
    with pytest.raises(UnavailableError, match="wait for their turn"):
        await source.find("another", TEXT, 3)
    assert len(provider.asked) == 1


async def test_an_exhausted_budget_asks_nobody(make):
    provider = Scripted([hit("a")])
    source, _ = make(provider, budget=Budget(calls_per_run=2))
    for query in ("a", "b"):
        await source.find(query, TEXT, 1)
    with pytest.raises(
        BudgetExhaustedError, match="this run's search budget of 2 calls is used up"
    ):
        await source.find("c", TEXT, 1)
    assert len(provider.asked) == 2


async def test_what_may_have_been_billed_stays_in_the_account(make, pauses):
    source, ledger = make(
        Scripted(CallError(UnavailableError("slow"), retryable=True, billed=True), [hit("a")])
    )
    await source.find("who", TEXT, 1)
    assert (await ledger.spent())["run"].calls == 2


async def test_many_clients_share_the_turns(make):
    now = most = 0
    full = asyncio.Event()

    class Counting(Scripted):
        async def ask(self, query, kind, num):
            nonlocal now, most
            now += 1
            most = max(most, now)
            if now == 3:
                for _ in range(100):  # a fourth would come in now, if it may
                    await asyncio.sleep(0)
                full.set()
            await full.wait()
            now -= 1
            return [hit("a")]

    source, _ = make(Counting([]), concurrency=3)
    await asyncio.gather(*(source.find(str(n), TEXT, 1) for n in range(40)))
    assert most == 3


async def test_calls_are_spaced_evenly(make, pauses):
    source, _ = make(Scripted([hit("a")]), rate=2.0)
    for n in range(4):
        await source.find(str(n), TEXT, 1)
    assert [round(pause, 1) for pause in pauses] == [0.0, 0.5, 1.0, 1.5]


async def test_a_crowd_is_turned_away_with_a_time_to_come_back(make, pauses):
    source, _ = make(Scripted([hit("a")]), rate=1.0, limiter={"max_wait_s": 3.0})
    answers = await asyncio.gather(
        *(source.find(str(n), TEXT, 1) for n in range(6)), return_exceptions=True
    )
    assert [isinstance(answer, UnavailableError) for answer in answers] == [False] * 4 + [True] * 2
    assert answers[-1].retry_after_s == pytest.approx(4.0, abs=0.2)


async def test_images_are_downloaded_until_there_are_enough(make):
    hits = [
        hit("gone", "x1"),
        hit("small", "x2", "t2"),
        hit("none"),
        hit("good", "x3"),
        hit("spare", "x4"),
    ]
    provider = Scripted(hits)
    source, _ = make(provider, images={"t2": b"two", "x3": b"three", "x4": b"four"})
    found = await source.find("who", IMAGE, 2)
    assert [(one.title, one.image) for one in found] == [("small", b"two"), ("good", b"three")]
    assert source.counts["images_missing"] == 1


async def test_without_any_image_the_titles_are_told(make):
    source, _ = make(Scripted([hit("gone", "x1"), hit("none")]))
    assert [(one.title, one.image) for one in await source.find("who", IMAGE, 1)] == [
        ("gone", None)
    ]


async def test_a_search_ends_with_its_time(make):
    class Hanging(Scripted):
        async def ask(self, query, kind, num):
            await asyncio.Event().wait()

    source, _ = make(Hanging([]), timeout_s=0.05)
    with pytest.raises(UnavailableError, match=r"no answer within 0\.05 s"):
        await source.find("who", TEXT, 1)

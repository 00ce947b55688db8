"""The cache: what goes in comes out, for as long as it should, whatever happens to the process or
the file.
"""

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_server.cache import CachedSearch, Key, MemoryCache, normalised
from retrieval_server.cache_file import CacheMode, SqliteCache, export_cache, import_cache, stats_of
from retrieval_server.schemas import CollectionKind
from retrieval_server.sources import SearchResult
from seg_common.errors import UsageError

TEXT, IMAGE = CollectionKind.TEXT, CollectionKind.IMAGE
KEY = Key.of("serper", TEXT, "who", 3)


def found(name="a", image=None):
    return SearchResult(
        f"id {name}", f"title {name}", f"text {name}", f"https://example.com/{name}", 0.5, image
    )


ANSWER = CachedSearch((found("a"), found("b", b"\xff\xd8 jpeg \x00")), "a note")


@pytest.fixture
def open_cache(tmp_path):
    opened = []

    def build(path=tmp_path / "cache.sqlite", mode=CacheMode.RECORD, **options):
        opened.append(SqliteCache(path, mode=mode, **options))
        return opened[-1]

    yield build
    for cache in opened:
        cache.close()


async def test_an_answer_survives_a_restart(open_cache):
    first = open_cache()
    assert await first.get(KEY) is None
    await first.put(KEY, ANSWER)
    assert first.look(KEY) == await first.get(KEY) == ANSWER
    second = open_cache()
    assert second.look(KEY) is None  # not in its memory yet
    assert await second.get(KEY) == second.look(KEY) == ANSWER


FINDINGS = st.builds(
    SearchResult, *[st.text()] * 4, st.floats(allow_nan=False), st.none() | st.binary(max_size=20)
)


@settings(max_examples=15, deadline=None)
@given(st.lists(FINDINGS, max_size=3), st.none() | st.text(), st.text())
def test_whatever_was_found_comes_back(tmp_path_factory, hits, note, query):
    path = tmp_path_factory.mktemp("any") / "c.sqlite"
    answer, key = CachedSearch(tuple(hits), note), Key.of("p", IMAGE, query, 1)

    async def there_and_back():
        cache = SqliteCache(path, mode=CacheMode.RECORD)
        await cache.put(key, answer)
        cache.close()
        cache = SqliteCache(path, mode=CacheMode.REPLAY)
        again = await cache.get(key)
        cache.close()
        return again

    assert asyncio.run(there_and_back()) == answer


DIFFERENT = [
    Key.of("tavily", TEXT, "who", 3),
    Key.of("serper", IMAGE, "who", 3),
    Key.of("serper", TEXT, "whom", 3),
    Key.of("serper", TEXT, "Who", 3),
    Key.of("serper", TEXT, "who", 4),
    Key.of("serper", TEXT, "who", 3, "browse"),
    Key.of("serper", TEXT, '"who"', 3),
]


@pytest.mark.parametrize("other", DIFFERENT)
async def test_other_questions_have_other_answers(other, open_cache):
    cache = open_cache()
    await cache.put(KEY, ANSWER)
    assert await cache.get(other) is None
    assert other.digest != KEY.digest


@pytest.mark.parametrize("query", ["who", " who ", "who\n", "\twho"])
async def test_spellings_of_one_question_share_an_answer(query, open_cache):
    cache = open_cache()
    await cache.put(KEY, ANSWER)
    assert await cache.get(Key.of("serper", TEXT, query, 3)) == ANSWER


def test_composed_and_decomposed_letters_are_one():
    assert normalised("Mu\u0308nchen  \u00a0 x\ud800") == "München x?"


def test_parts_of_a_key_cannot_be_shifted():
    assert Key("a", TEXT, "b", 1, "c").digest != Key("a", TEXT, "bc", 1, "").digest


@pytest.mark.parametrize("make", ["memory", "file"])
async def test_answers_grow_stale(make, open_cache):
    now = 1000.0
    cache = (
        MemoryCache(ttl_s=10, clock=lambda: now)
        if make == "memory"
        else open_cache(ttl_s=10, clock=lambda: now)
    )
    await cache.put(KEY, ANSWER)
    now = 1010.0
    assert await cache.get(KEY) == ANSWER
    now = 1010.1
    assert cache.look(KEY) is None
    assert await cache.get(KEY) is None
    await cache.put(KEY, CachedSearch(()))
    assert await cache.get(KEY) == CachedSearch(())


async def test_the_age_of_an_answer_counts_from_its_making(open_cache):
    now = 1000.0
    await open_cache(ttl_s=10, clock=lambda: now).put(KEY, ANSWER)
    now = 1009.0
    later = open_cache(ttl_s=10, clock=lambda: now)
    assert await later.get(KEY) == ANSWER
    now = 1011.0
    assert await later.get(KEY) is None


async def test_a_recording_never_grows_stale_and_is_never_written(open_cache, tmp_path, caplog):
    await open_cache(clock=lambda: 0.0).put(KEY, ANSWER)
    replay = open_cache(mode=CacheMode.REPLAY, ttl_s=1, clock=lambda: 1e12)
    assert await replay.get(KEY) == ANSWER
    await replay.put(DIFFERENT[0], ANSWER)
    assert "cannot keep the answer" in caplog.text
    assert stats_of(tmp_path / "cache.sqlite").num_answers == {"serper text": 1}


def test_a_recording_must_be_there(tmp_path):
    with pytest.raises(UsageError, match=r"no such cache file to replay; record one first"):
        SqliteCache(tmp_path / "none.sqlite", mode=CacheMode.REPLAY)


async def test_the_memory_is_bounded():
    cache = MemoryCache(max_bytes=100_000)
    big = CachedSearch((found("a", b"x" * 30_000),))
    for n in range(10):
        await cache.put(Key.of("p", TEXT, str(n), 1), big)
    assert [n for n in range(10) if cache.look(Key.of("p", TEXT, str(n), 1))] == [7, 8, 9]
    assert cache.num_bytes <= 100_000
    cache.look(Key.of("p", TEXT, "7", 1))
    await cache.put(Key.of("p", TEXT, "new", 1), big)
    assert cache.look(Key.of("p", TEXT, "7", 1))  # used a moment ago
    assert not cache.look(Key.of("p", TEXT, "8", 1))
    await cache.put(Key.of("p", TEXT, "huge", 1), CachedSearch((found("a", b"x" * 200_000),)))
    assert not cache.look(Key.of("p", TEXT, "huge", 1))
    assert cache.look(Key.of("p", TEXT, "new", 1)), "what is too large displaces nothing"


async def test_an_image_is_kept_once(open_cache, tmp_path):
    cache = open_cache()
    for n in range(5):
        await cache.put(
            Key.of("serper", IMAGE, str(n), 1), CachedSearch((found("a", b"one image"),))
        )
    assert stats_of(tmp_path / "cache.sqlite").num_images == 1


NOT_OURS = {
    "text": b"not a database, but long enough to have a header " * 40,
    "short": b"x",
}


@pytest.mark.parametrize("name", [*NOT_OURS, "another program", "another version", "folder"])
def test_another_file_is_a_usage_error_and_stays_as_it_is(name, tmp_path):
    path = tmp_path / "file"
    if name in NOT_OURS:
        path.write_bytes(NOT_OURS[name])
    elif name == "folder":
        path.mkdir()
    else:
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE accounts (a)")
            if name == "another version":
                database.executescript(
                    "PRAGMA application_id = 0x53524348; PRAGMA user_version = 99"
                )
        database.close()
    before = None if path.is_dir() else path.read_bytes()
    with pytest.raises(UsageError) as raised:
        SqliteCache(path, mode=CacheMode.RECORD)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert before is None or path.read_bytes() == before


@pytest.mark.parametrize(
    "hits",
    [
        "",
        "{",
        "[5]",
        '[{"id": 1}]',
        '[{"id": "a", "title": "", "text": "", "source": "", "score": "x", "image": null}]',
    ],
)
async def test_a_damaged_row_is_no_answer_and_is_replaced(hits, open_cache, tmp_path, caplog):
    cache = open_cache()
    await cache.put(KEY, ANSWER)
    with sqlite3.connect(tmp_path / "cache.sqlite") as database:
        database.execute("UPDATE answers SET hits = ?", (hits,))
    database.close()
    again = open_cache()
    assert await again.get(KEY) is None
    assert "cannot read the answer" in caplog.text
    await again.put(KEY, ANSWER)
    assert await open_cache().get(KEY) == ANSWER


async def test_an_answer_that_cannot_be_kept_is_told_and_used(open_cache, monkeypatch, caplog):
    cache = open_cache()

    def full(*args):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("retrieval_server.cache_file._insert", full)
    await cache.put(KEY, ANSWER)
    assert await cache.get(KEY) == ANSWER
    assert "disk is full" in caplog.text


async def test_servers_share_a_file(open_cache, caplog):
    one, other = open_cache(), open_cache()
    keys = [Key.of("p", TEXT, str(n), 1) for n in range(60)]
    await asyncio.gather(*((one, other)[n % 2].put(key, ANSWER) for n, key in enumerate(keys)))
    assert [await cache.get(key) for key in keys for cache in (one, other)] == [ANSWER] * 120
    assert "cannot keep" not in caplog.text


WRITER = """
import asyncio, sys
from pathlib import Path
from retrieval_server.cache import CachedSearch, Key
from retrieval_server.cache_file import CacheMode, SqliteCache
from retrieval_server.schemas import CollectionKind
from retrieval_server.sources import SearchResult
cache = SqliteCache(Path(sys.argv[1]), mode=CacheMode.RECORD)
async def write(worker):
    n = worker
    while True:
        image = bytes([n % 251]) * 20000
        texts = str(n), "t" * 2000, "x" * 3000
        hits = tuple(SearchResult(*texts, str(i), 0.5, image) for i in range(3))
        await cache.put(Key.of("p", CollectionKind.IMAGE, str(n), 1), CachedSearch(hits, str(n)))
        print(n, flush=True)
        n += 8
async def main():
    await asyncio.gather(*map(write, range(8)))
asyncio.run(main())
"""


@pytest.mark.parametrize("num_lines", [1, 60, 150])
async def test_a_killed_writer_loses_and_damages_nothing(num_lines, open_cache, tmp_path):
    path = tmp_path / "killed.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE
    ) as process:
        lines = [process.stdout.readline() for _ in range(num_lines)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines(keepends=True)
    written = [int(line) for line in lines if line.endswith(b"\n")]
    assert len(written) >= num_lines
    replay = open_cache(path, CacheMode.REPLAY)  # reads the log that the dead writer left
    for n in written:
        answer = await replay.get(Key.of("p", IMAGE, str(n), 1))
        assert answer is not None
        assert answer.note == str(n)
        assert [hit.image for hit in answer.hits] == [bytes([n % 251]) * 20000] * 3
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    rows = database.execute("SELECT hits FROM answers").fetchall()
    images = {digest for (digest,) in database.execute("SELECT digest FROM pictures")}
    database.close()
    assert len(rows) >= len(written)
    assert {hit["image"] for (hits,) in rows for hit in json.loads(hits)} <= images
    await open_cache(path).put(KEY, ANSWER)  # and the next writer goes on


async def test_export_is_one_file_that_can_be_replayed(open_cache, tmp_path):
    cache = open_cache()
    await cache.put(KEY, ANSWER)
    target = tmp_path / "out" / "export.sqlite"
    exported = export_cache(tmp_path / "cache.sqlite", target)  # the writer is still at work
    assert exported.num_answers == {"serper text": 1}
    assert exported.num_images == 1
    assert [path.name for path in target.parent.iterdir()] == ["export.sqlite"]
    assert await open_cache(target, CacheMode.REPLAY).get(KEY) == ANSWER


async def test_import_takes_what_is_missing_or_newer(open_cache, tmp_path):
    mine, theirs = tmp_path / "mine.sqlite", tmp_path / "theirs.sqlite"
    old, new = open_cache(mine, clock=lambda: 10.0), open_cache(theirs, clock=lambda: 20.0)
    await old.put(KEY, CachedSearch((found("old"),)))
    await old.put(DIFFERENT[0], CachedSearch((found("mine"),)))
    await new.put(KEY, ANSWER)
    await new.put(DIFFERENT[1], CachedSearch((found("theirs"),)))
    done = []
    assert import_cache(mine, theirs, progress=done.append) == 2
    assert sum(done) == 2
    merged = open_cache(mine, CacheMode.REPLAY)
    assert await merged.get(KEY) == ANSWER
    assert [(await merged.get(key)).hits[0].title for key in DIFFERENT[:2]] == [
        "title mine",
        "title theirs",
    ]
    assert import_cache(mine, theirs) == 0  # again changes nothing
    assert import_cache(theirs, mine) == 1


async def test_import_into_a_new_file(open_cache, tmp_path):
    await open_cache().put(KEY, ANSWER)
    assert import_cache(tmp_path / "new.sqlite", tmp_path / "cache.sqlite") == 1
    assert await open_cache(tmp_path / "new.sqlite").get(KEY) == ANSWER


DAMAGES = [
    "UPDATE answers SET hits = '{'",
    "UPDATE answers SET kind = 'video'",
    "UPDATE answers SET top_k = 'many'",
    "DELETE FROM pictures",
    "UPDATE pictures SET jpeg = X'00'",
    "DROP TABLE pictures",
]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_import_is_refused_whole(damage, open_cache, tmp_path):
    source, target = tmp_path / "source.sqlite", tmp_path / "target.sqlite"
    await open_cache(source).put(KEY, ANSWER)
    await open_cache(target).put(DIFFERENT[0], ANSWER)
    with sqlite3.connect(source) as database:
        database.execute(damage)
    database.close()
    with pytest.raises(UsageError, match="cannot be imported"):
        import_cache(target, source)
    assert stats_of(target).num_answers == {"tavily text": 1}


def test_files_that_are_not_there(tmp_path):
    here, there = tmp_path / "x", tmp_path / "y"
    for work in (
        lambda: stats_of(here),
        lambda: export_cache(here, there),
        lambda: import_cache(there, here),
    ):
        with pytest.raises(UsageError, match="no such cache file"):
            work()
    assert list(tmp_path.iterdir()) == []


async def test_a_cache_is_not_exported_onto_itself(open_cache, tmp_path):
    await open_cache().put(KEY, ANSWER)
    with pytest.raises(UsageError, match="this is the cache itself"):
        export_cache(tmp_path / "cache.sqlite", tmp_path / "." / "cache.sqlite")

import json

import pytest

from seg_common.errors import UsageError
from seg_common.files import (
    append_jsonl,
    atomic_path,
    read_jsonl,
    read_numbered_jsonl,
    repair_jsonl,
    write_atomic,
)


def test_atomic_write_replaces_the_whole_file(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    write_atomic(target, "first, long")
    write_atomic(target, "second")
    assert target.read_text() == "second"
    assert [p.name for p in target.parent.iterdir()] == ["file.txt"], "no temporary file is left"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "file.txt"
    write_atomic(target, "old")

    def stop_half_way():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stop_half_way()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_an_unwritable_place_is_the_users_problem(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot write"):
        write_atomic(tmp_path / "file" / "below.txt", "x")


def test_a_half_written_last_line_is_cut_and_whole_lines_stay(tmp_path):
    path = tmp_path / "log.jsonl"
    append_jsonl(path, {"n": 1, "text": "ä"})
    append_jsonl(path, {"n": 2})
    with path.open("ab") as handle:
        handle.write(b'{"n": 3, "te')
    assert repair_jsonl(path) == 12
    assert repair_jsonl(path) == 0
    assert [record["n"] for record in read_jsonl(path)] == [1, 2]


def test_line_numbers_count_blank_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('\n{"a": 1}\n\n{"a": 2}\n')
    assert list(read_numbered_jsonl(path)) == [(2, {"a": 1}), (4, {"a": 2})]


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "line 2: not valid JSON"), ("[1]", "line 2: expected a JSON object, found list")],
)
def test_a_broken_line_is_named(tmp_path, line, message):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"a": 1}) + "\n" + line + "\n")
    with pytest.raises(UsageError, match=message):
        list(read_jsonl(path))


def test_bytes_that_are_no_text_are_named(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(UsageError, match="line 1: not valid JSON"):
        list(read_jsonl(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"none\.jsonl: no such file"):
        list(read_jsonl(tmp_path / "none.jsonl"))

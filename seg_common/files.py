"""Reading and writing that survives a crash: whole files appear at once, JSON lines are never half
there.

A full disk, a missing folder and a broken line all become one `UsageError` that names the file (and
the line).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from seg_common.errors import UsageError


@contextmanager
def atomic_path(target: Path) -> Generator[Path]:
    """Give a temporary path beside the target; on success it replaces the target, on failure it
    vanishes.
    """
    with _disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent
        )
        os.close(handle)
    temporary = Path(name)
    try:
        with _disk_errors(target):
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(target: Path, content: str | bytes) -> None:
    """Write a whole file, so that a reader sees the old one or the new one and nothing between."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))


def append_jsonl(path: Path, record: dict[str, Any]) -> None:
    """Append one JSON line and force it to the disk; it is lost or whole after a kill, never half
    (see `repair_jsonl`).
    """
    with _disk_errors(path), path.open("ab") as handle:
        handle.write(
            (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", errors="replace")
        )
        handle.flush()
        os.fsync(handle.fileno())


def repair_jsonl(path: Path) -> int:
    """Cut an unfinished last line, as a killed writer leaves it; return the number of bytes cut."""
    if not path.exists():
        return 0
    raw = path.read_bytes()
    keep = raw.rfind(b"\n") + 1
    if keep < len(raw):
        with path.open("r+b") as handle:
            handle.truncate(keep)
    return len(raw) - keep


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Stream the objects of a JSON-lines file; blank lines are skipped.

    Raises:
        UsageError: the file is missing, or a line is not a JSON object; names file and line.
    """
    for _, record in read_numbered_jsonl(path):
        yield record


def read_numbered_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Stream (line number from 1, object) pairs, for readers whose own messages name the line;
    otherwise as `read_jsonl`.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            if not line.strip():
                continue
            yield number, parse_object(line, f"{path} line {number}")


def parse_object(line: bytes, where: str) -> dict[str, Any]:
    """Parse one line of a JSON-lines file.

    Raises:
        UsageError: it is not a JSON object; begins with `where`.
    """
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not valid JSON ({error}); fix or delete this line") from None
    if not isinstance(value, dict):
        raise UsageError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return cast("dict[str, Any]", value)


@contextmanager
def _disk_errors(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(
            f"{path}: cannot write ({reason}); free some space or choose another folder, then run"
            " again"
        ) from error

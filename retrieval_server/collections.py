"""Corpora on disk: JSON lines, read and checked once at start, so that a broken line is found before the first query."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from retrieval_server.schemas import CollectionKind
from seg_research.core.errors import UsageError
from seg_research.core.files import read_numbered_jsonl

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that can be found.

    Attributes:
        contents: what is embedded; the first line is the title, the rest the text.
        picture: file of the picture; None for passages and missing pictures.
    """

    id: str | int
    contents: str
    picture: Path | None = None

    @property
    def title(self) -> str:
        """First line of the contents."""
        return self.contents.partition("\n")[0].strip()

    @property
    def text(self) -> str:
        """Everything after the title."""
        return self.contents.partition("\n")[2].strip()


@dataclass(frozen=True, slots=True)
class Collection:
    """The entries of one corpus file, in file order."""

    kind: CollectionKind
    path: Path
    entries: tuple[Entry, ...]

    def source_of(self, entry: Entry) -> str:
        """Name an entry without telling where the corpus lies."""
        return f"{self.path.name}#{entry.id}"

    @property
    def num_pictures(self) -> int:
        """Entries whose picture is there."""
        return sum(entry.picture is not None for entry in self.entries)


def load_text_corpus(path: Path) -> Collection:
    """Read passages: one `{"id", "contents"}` a line, contents = title, newline, text.

    Raises:
        UsageError: the file is missing or empty, or a line is not of that form; names file and line.
    """
    entries = tuple(Entry(_id(record, where), _string(record, "contents", where)) for where, record in _records(path))
    return _checked(Collection(CollectionKind.TEXT, path, entries))


def load_image_corpus(path: Path) -> Collection:
    """Read pictures: one `{"id", "name", "filename", "image_path"?}` a line.

    A picture lies in `images/<filename>` beside the corpus, or at `image_path` from the corpus' folder or the working directory. The
    title of a missing picture can still be found.

    Raises:
        UsageError: the file is missing or empty, or a line is not of that form; names file and line.
    """
    entries = tuple(
        Entry(_id(record, where), _string(record, "name", where), _find_picture(record, path.parent, where))
        for where, record in _records(path)
    )
    missing = [entry.title for entry in entries if entry.picture is None]
    if missing:
        _logger.warning(
            "%s: %d of %d pictures are missing (first: %r); their titles are still found", path, len(missing), len(entries), missing[0]
        )
    return _checked(Collection(CollectionKind.IMAGE, path, entries))


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, record in read_numbered_jsonl(path):
        yield f"{path} line {number}", record


def _checked(collection: Collection) -> Collection:
    if not collection.entries:
        raise UsageError(f"{collection.path}: holds no entries; expected one JSON object a line")
    repeated = [str(id_) for id_, count in Counter(entry.id for entry in collection.entries).items() if count > 1]
    if repeated:
        _logger.warning("%s: %d ids stand for several entries (first: %s)", collection.path, len(repeated), repeated[0])
    return collection


def _id(record: dict[str, Any], where: str) -> str | int:
    value = record.get("id")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UsageError(f"{where}: 'id' is {value!r}; expected a string or an integer")
    return value


def _string(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{where}: {key!r} is {value!r}; expected a string that is not empty")
    # A lone surrogate is legal in JSON and has no UTF-8 form: it would fail much later, inside the tokenizer.
    return value.encode("utf-8", "replace").decode("utf-8").strip()


def _find_picture(record: dict[str, Any], folder: Path, where: str) -> Path | None:
    candidates = [folder / "images" / _relative(record, "filename", where)]
    if record.get("image_path") is not None:
        stated = _relative(record, "image_path", where)
        candidates += [folder / stated, Path.cwd() / stated]
    return next((path for path in candidates if path.is_file()), None)


def _relative(record: dict[str, Any], key: str, where: str) -> PurePath:
    """Read a path that stays inside its folder: a corpus from elsewhere must not be able to serve any file of this machine."""
    path = PurePath(_string(record, key, where))
    if path.is_absolute() or ".." in path.parts or "\0" in str(path):
        raise UsageError(f"{where}: {key!r} is {str(path)!r}; expected a relative path without '..'")
    return path

"""Corpora on disk: JSON lines, checked once, then read entry by entry.

What stays in memory is one offset per entry, so that a corpus of millions of passages costs
megabytes. N is the number of entries.
"""

from __future__ import annotations

import hashlib
import logging
import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from retrieval_server.schemas import CollectionKind
from seg_common.errors import UsageError
from seg_common.files import parse_object

_HASHED_BYTES = 1 << 20
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that can be found.

    Attributes:
        contents: what is embedded; the first line is the title, the rest the text.
        image: file of the image; None for passages and missing images.
    """

    id: str | int
    contents: str
    image: Path | None = None

    @property
    def title(self) -> str:
        """First line of the contents."""
        return self.contents.partition("\n")[0].strip()

    @property
    def text(self) -> str:
        """Everything after the title."""
        return self.contents.partition("\n")[2].strip()


class Collection:
    """The entries of one corpus file, in file order; `collection[i]` reads one of them."""

    def __init__(
        self, kind: CollectionKind, path: Path, offsets_N: np.ndarray, sha256: str
    ) -> None:
        """Map a corpus file that was checked before; see `load_corpus`."""
        self.kind, self.path, self.sha256 = kind, path, sha256
        self.offsets_N = offsets_N
        # Read at offsets and not mapped: a corpus that somebody cuts short in place then costs a
        # reply, and not the process (SIGBUS).
        self._file = path.open("rb")
        self._num_bytes = path.stat().st_size

    def __len__(self) -> int:
        return len(self.offsets_N)

    def __getitem__(self, index: int) -> Entry:
        start = int(self.offsets_N[index])
        end = int(self.offsets_N[index + 1]) if index + 1 < len(self.offsets_N) else self._num_bytes
        where = f"{self.path} byte {start}"
        return _PARSERS[self.kind](
            parse_object(os.pread(self._file.fileno(), end - start, start), where), self.path, where
        )

    def __iter__(self) -> Iterator[Entry]:
        return (self[index] for index in range(len(self)))

    def source_of(self, entry: Entry) -> str:
        """Name an entry without telling where the corpus lies."""
        return f"{self.path.name}#{entry.id}"


def load_corpus(kind: CollectionKind, path: Path) -> Collection:
    """Read and check a corpus.

    Text: one `{"id", "contents"}` a line, contents = title, newline, text. Image: one `{"id",
    "name", "filename", "image_path"?}` a line; an image lies in `images/<filename>` beside the
    corpus, or at `image_path` from the corpus' folder or the working directory. The title of a
    missing image can still be found.

    Raises:
        UsageError: the file is missing or empty, or a line is not of that form; names file and
            line.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    offsets, id_hashes, num_missing, first_missing = array("q"), array("q"), 0, ""
    digest, parse = hashlib.sha256(), _PARSERS[kind]
    with path.open("rb") as handle:
        offset = 0
        for number, line in enumerate(handle, 1):
            digest.update(line)
            if line.strip():
                where = f"{path} line {number}"
                entry = parse(parse_object(line, where), path, where)
                offsets.append(offset)
                id_hashes.append(hash(entry.id))
                if kind is CollectionKind.IMAGE and entry.image is None:
                    num_missing, first_missing = num_missing + 1, first_missing or entry.title
            offset += len(line)
    if not offsets:
        raise UsageError(f"{path}: holds no entries; expected one JSON object a line")
    num_repeated = len(id_hashes) - len(np.unique(np.frombuffer(id_hashes, np.int64)))
    if num_repeated:
        _logger.warning("%s: %d entries bear an id that another one has too", path, num_repeated)
    if num_missing:
        advice = "their titles are still found"
        _logger.warning(
            "%s: %d of %d images are missing (first: %r); %s",
            path,
            num_missing,
            len(offsets),
            first_missing,
            advice,
        )
    return Collection(kind, path, np.frombuffer(offsets, np.int64), digest.hexdigest())


def sha256_of(path: Path) -> str:
    """Hash a corpus file as `load_corpus` does, without parsing it."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(_HASHED_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _text_entry(record: dict[str, Any], path: Path, where: str) -> Entry:
    return Entry(_id(record, where), _string(record, "contents", where))


def _image_entry(record: dict[str, Any], path: Path, where: str) -> Entry:
    return Entry(
        _id(record, where),
        _string(record, "name", where),
        _find_image(record, path.parent, where),
    )


_PARSERS: dict[CollectionKind, Callable[[dict[str, Any], Path, str], Entry]] = {
    CollectionKind.TEXT: _text_entry,
    CollectionKind.IMAGE: _image_entry,
}


def _id(record: dict[str, Any], where: str) -> str | int:
    value = record.get("id")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UsageError(f"{where}: 'id' is {value!r}; expected a string or an integer")
    # A lone surrogate is legal in JSON and has no UTF-8 form: it would fail much later, in the
    # reply.
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def _string(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{where}: {key!r} is {value!r}; expected a string that is not empty")
    return value.encode("utf-8", "replace").decode("utf-8").strip()


def _find_image(record: dict[str, Any], folder: Path, where: str) -> Path | None:
    candidates = [folder / "images" / _relative(record, "filename", where)]
    if record.get("image_path") is not None:
        stated = _relative(record, "image_path", where)
        candidates += [folder / stated, Path.cwd() / stated]
    return next((path for path in candidates if path.is_file()), None)


def _relative(record: dict[str, Any], key: str, where: str) -> PurePath:
    """Read a path that stays inside its folder: a corpus from elsewhere must not be able to serve
    any file of this machine.
    """
    path = PurePath(_string(record, key, where))
    if path.is_absolute() or ".." in path.parts or "\0" in str(path):
        raise UsageError(
            f"{where}: {key!r} is {str(path)!r}; expected a relative path without '..'"
        )
    return path

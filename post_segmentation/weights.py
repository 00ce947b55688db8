"""Where a back-end's weights lie, and which ones they are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from seg_common import model_hub
from seg_common.errors import UsageError

_PATTERNS = ("*.json", "*.safetensors")
_SAMPLE_BYTES = 1 << 20


def find_model_folder(weights: str) -> Path:
    """Return the folder of a transformers model: a local folder as it is, a hub id from the local
    cache or downloaded into it.

    Raises:
        UsageError: there is no such folder and no such model, or the hub cannot be reached.
    """
    return model_hub.find_model_folder(
        weights,
        _PATTERNS,
        not_a_model="not a folder of a transformers model (no config.json in it)",
        offline="give the folder with --weights, or use --backend grabcut, which needs none",
    )


def is_cached(model_id: str) -> bool:
    """Tell whether a hub model is on this machine, without asking the network."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return False
    return isinstance(try_to_load_from_cache(model_id, "model.safetensors"), str)


def find_checkpoint(weights: str) -> Path:
    """Return the file of a single-file checkpoint.

    Raises:
        UsageError: there is none.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UsageError(f"{weights}: no such checkpoint file")
    return path


def fingerprint(path: Path) -> str:
    """Return a short hash that tells one set of weights from another, whatever the folder's name.

    Big files are told apart by their size, first and last mebibyte: any training changes those.

    Raises:
        UsageError: the files cannot be read.
    """
    files = (
        sorted(f for pattern in _PATTERNS for f in path.glob(pattern)) if path.is_dir() else [path]
    )
    parts: list[list[str | int]] = []
    try:
        for file in files:
            size = file.stat().st_size
            with file.open("rb") as handle:
                sample = handle.read(_SAMPLE_BYTES)
                handle.seek(max(0, size - _SAMPLE_BYTES))
                sample += handle.read()
            parts.append(
                [file.name if path.is_dir() else "", size, hashlib.sha256(sample).hexdigest()]
            )
    except OSError as error:
        raise UsageError(f"{path}: cannot read these weights ({error.strerror})") from None
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

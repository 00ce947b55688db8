"""Where a back-end's weights lie, and which ones they are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from seg_common.errors import UsageError

_PATTERNS = ("*.json", "*.safetensors")
_SAMPLE_BYTES = 1 << 20


def find_model_folder(weights: str) -> Path:
    """Return the folder of a transformers model: a local folder as it is, a hub id from the local
    cache or downloaded into it.

    Raises:
        UsageError: there is no such folder and no such model, or the hub cannot be reached.
    """
    folder = Path(weights).expanduser()
    if folder.exists() or weights.startswith((".", "/", "~")):
        if not (folder / "config.json").is_file():
            raise UsageError(
                f"{weights}: not a folder of a transformers model (no config.json in it)"
            )
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(weights, allow_patterns=list(_PATTERNS)))
    except HFValidationError:
        reason = "neither a folder nor the id of a model on the hub"
    except RepositoryNotFoundError:
        reason = "the hub has no such model that you may read (check the spelling, log in with `hf auth login`)"
    except (LocalEntryNotFoundError, OSError):
        reason = (
            "these weights are not on this machine and the hub cannot be reached; download them where there is a network"
            f" (hf download {weights}) and give the folder with --weights, or use --backend grabcut, which needs none"
        )
    raise UsageError(f"{weights}: {reason}")


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

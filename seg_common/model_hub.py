"""Where the folder of a transformers model lies: on this machine, or on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seg_common.errors import UsageError


def find_model_folder(
    name: str, patterns: Sequence[str], *, not_a_model: str, offline: str
) -> Path:
    """Return a local folder as it is, and the snapshot of a hub id from the local cache or
    downloaded into it.

    Args:
        name: folder or hub id.
        patterns: the files of the model that are needed.
        not_a_model: what to say of a folder without a `config.json`.
        offline: what to do where the hub is needed and cannot be reached.

    Raises:
        UsageError: there is no such folder and no such model, or the hub cannot be reached.
    """
    folder = Path(name).expanduser()
    if folder.exists() or name.startswith((".", "/", "~")):
        if not (folder / "config.json").is_file():
            raise UsageError(f"{name}: {not_a_model}")
        return folder
    import huggingface_hub
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        hub: Any = huggingface_hub  # whose signatures are typed in part
        return Path(hub.snapshot_download(name, allow_patterns=list(patterns)))
    except HFValidationError:
        reason = "neither a folder nor the id of a model on the hub"
    except RepositoryNotFoundError:
        reason = (
            "the hub has no such model that you may read (check the spelling, log in with "
            "`hf auth login`)"
        )
    except (LocalEntryNotFoundError, OSError):
        reason = (
            "this model is not on this machine and the hub cannot be reached; download it where "
            f"there is a network (hf download {name}) and {offline}"
        )
    raise UsageError(f"{name}: {reason}")

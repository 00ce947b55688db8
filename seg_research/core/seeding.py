"""Seeds that depend on what they are for, never on the order in which work happens to run."""

from __future__ import annotations

import hashlib


def derive_seed(root: int, *purpose: str | int) -> int:
    """Derive a 63-bit seed for one purpose, e.g. `derive_seed(0, "mini", "train", 7)`; the same on
    every machine.
    """
    text = "\x1f".join([str(root), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") >> 1

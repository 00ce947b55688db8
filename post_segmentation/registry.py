"""The mask back-ends that are known, by name: those of `post_segmentation/backends/`, those that
were registered, and any other as `package.module:SPEC`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from post_segmentation import backends
from post_segmentation.backend import Backend, BackendSpec
from seg_common.errors import UsageError
from seg_common.registry import find_attribute

_registered: dict[str, BackendSpec] = {}


def register(spec: BackendSpec) -> BackendSpec:
    """Make a back-end known under its name, in this process; return it.

    Raises:
        ValueError: another back-end has this name.
    """
    known = _registered.setdefault(spec.name, spec)
    if known != spec:
        raise ValueError(f"back-end {spec.name!r} is registered twice")
    return spec


def list_backends() -> tuple[BackendSpec, ...]:
    """Return all known back-ends: the preferred ones first, then by name."""
    for module in pkgutil.iter_modules(backends.__path__):
        register(importlib.import_module(f"{backends.__name__}.{module.name}").SPEC)
    last = len(_registered)
    return tuple(
        sorted(
            _registered.values(),
            key=lambda spec: (last if spec.preference is None else spec.preference, spec.name),
        )
    )


def find_backend(name: str) -> BackendSpec:
    """Return a back-end by its name, or by `package.module:SPEC` where it is not registered.

    Raises:
        UsageError: there is none of that name.
    """
    known = {spec.name: spec for spec in list_backends()}
    if name in known:
        return known[name]
    if ":" not in name:
        raise UsageError(
            f"--backend {name}: expected one of {', '.join(known)}, or package.module:SPEC"
        )
    return find_attribute(name, BackendSpec, "mask back-end")


def choose_backend(options: Mapping[str, Any]) -> tuple[Backend, tuple[str, ...]]:
    """Return the first preferred back-end that lacks nothing on this machine, and what those before
    it lack.

    Raises:
        UsageError: it does not take these options.
    """
    lacking: list[str] = []
    for spec in list_backends():
        if spec.preference is None:
            break
        taken = {option.name for option in spec.options}
        chosen = spec.configure({k: v for k, v in options.items() if k in taken})
        reason = spec.missing(chosen.config)
        if not reason:
            return spec.configure(options), tuple(lacking)
        lacking.append(reason)
    raise UsageError(f"no back-end can run: {'; '.join(lacking)}; name one with --backend")

"""Check that the installed verl still has every symbol we take hold of, with the parameters we rely
on.

The list is `extension_points.toml` beside this file (package data, so that an installed wheel has
it too; `verl/extension_points.toml` of the repository is a link to it). Importing this module
imports nothing heavy; checking imports verl, and with it torch and ray.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import tomllib
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ExtensionPoint:
    """One symbol of verl.

    Attributes:
        symbol: `package.module:qualified.name`.
        parameters: names in order, without `self`; None where the symbol is not called by us.
        abstract: methods a subclass must define; None where we do not subclass it.
        used_by: files of `seg_research/training` that need it.
        why: why this seam.
    """

    symbol: str
    used_by: str
    why: str
    parameters: tuple[str, ...] | None = None
    abstract: tuple[str, ...] | None = None
    needs: str | None = None


@dataclass(frozen=True, slots=True)
class ExtensionPointStatus:
    """Outcome of one check; `detail` is one line, empty where all is well."""

    name: str
    ok: bool
    detail: str = ""


def tested_verl() -> str:
    """Return the version of verl that this was made for."""
    return load_extension_points()[0]


def load_extension_points() -> tuple[str, tuple[ExtensionPoint, ...]]:
    """Return the verl version the list was made for, and the list."""
    source = (
        resources.files("seg_research.training")
        .joinpath("extension_points.toml")
        .read_text(encoding="utf-8")
    )
    table = tomllib.loads(source)
    return table["verl"], tuple(_point(entry) for entry in table["point"])


def check_extension_points() -> list[ExtensionPointStatus]:
    """Check the installation of verl, then every symbol; never raises because of what verl looks
    like.
    """
    wanted, points = load_extension_points()
    installation = check_installation(wanted)
    if not installation.ok:
        return [installation]
    return [installation, *map(check_point, points)]


def check_installation(wanted: str) -> ExtensionPointStatus:
    """Check that verl is the wanted version, in site-packages; a checkout or an editable install is
    shadowed by the folder `verl/`.
    """
    try:
        found = metadata.version("verl")
    except metadata.PackageNotFoundError:
        return ExtensionPointStatus(
            "verl", False, f'not installed; run: pip install "verl=={wanted}"'
        )
    if found != wanted:
        return ExtensionPointStatus(
            "verl",
            False,
            f'{found} is installed, {wanted} was tested; run: pip install "verl=={wanted}"',
        )
    spec = importlib.util.find_spec("verl")
    origin = spec.origin if spec is not None else None
    if origin is None or "site-packages" not in Path(origin).parts:
        return ExtensionPointStatus(
            "verl",
            False,
            f"`import verl` finds {origin or 'a bare folder'}; uninstall verl and install its "
            "wheel",
        )
    return ExtensionPointStatus("verl", True, wanted)


def check_point(point: ExtensionPoint) -> ExtensionPointStatus:
    """Import one symbol and compare its parameters and abstract methods with what is expected."""
    if point.needs is not None and importlib.util.find_spec(point.needs) is None:
        return ExtensionPointStatus(point.symbol, True)
    module_name, _, qualified = point.symbol.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in qualified.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        return ExtensionPointStatus(
            point.symbol, False, f"cannot be imported ({error}); needed by {point.used_by}"
        )
    if point.parameters is not None:
        names = tuple(name for name in inspect.signature(found).parameters if name != "self")
        if names != point.parameters:
            return ExtensionPointStatus(
                point.symbol,
                False,
                f"takes ({', '.join(names)}), expected ({', '.join(point.parameters)})",
            )
    if point.abstract is not None:
        methods: set[str] = set(getattr(found, "__abstractmethods__", ()))
        if methods != set(point.abstract):
            differing = ", ".join(sorted(methods.symmetric_difference(point.abstract)))
            return ExtensionPointStatus(
                point.symbol, False, f"abstract methods differ: {differing}"
            )
    return ExtensionPointStatus(point.symbol, True)


def _point(entry: dict[str, Any]) -> ExtensionPoint:
    needs = entry.get("needs")
    lists = {key: tuple(entry[key]) for key in ("parameters", "abstract") if key in entry}
    return ExtensionPoint(entry["symbol"], entry["used_by"], entry["why"], **lists, needs=needs)

"""Things of one kind that a name stands for: each in a module of one package, found by the module's
name, so that adding one adds a file and changes none; or anywhere else, as `package.module:NAME`.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
from pathlib import Path
from typing import Generic, TypeVar

from seg_common.errors import UsageError

T = TypeVar("T")

ATTRIBUTE = "SPEC"
"""The name by which a module of the package offers its thing."""


class Registry(Generic[T]):
    """The modules of a package whose name does not begin with an underscore.

    Nothing is imported before it is asked for.
    """

    def __init__(self, package: str, kind: type[T], noun: str) -> None:
        """Know a package.

        Args:
            package: name of the package.
            kind: type of every `SPEC`.
            noun: what it is called in messages, e.g. `evaluation protocol`.
        """
        self._package, self._kind, self._noun = package, kind, noun

    def names(self) -> list[str]:
        """Return the names of the package's modules, sorted."""
        folders = importlib.import_module(self._package).__path__
        return sorted(
            found.name for found in pkgutil.iter_modules(folders) if not found.name.startswith("_")
        )

    def summaries(self) -> dict[str, str]:
        """Return the first sentence of each module's docstring by name; imports none of them."""
        return {name: module_summary(f"{self._package}.{name}") for name in self.names()}

    def find(self, name: str) -> T:
        """Return a thing by its module's name, or by `package.module:NAME` of a module that Python
        finds.

        Raises:
            UsageError: there is none of that name, or it is of another kind.
        """
        module_name, colon, attribute = name.partition(":")
        if not colon:
            if name not in self.names():
                raise UsageError(
                    f"unknown {self._noun} {name!r}; there are: {', '.join(self.names())}, "
                    "or your own: package.module:NAME"
                )
            module_name, attribute = f"{self._package}.{name}", ATTRIBUTE
        return find_attribute(f"{module_name}:{attribute}", self._kind, self._noun)


def find_attribute(place: str, kind: type[T], noun: str) -> T:
    """Import what stands at `package.module:NAME`.

    Raises:
        UsageError: there is no such module or name, or what stands there is of another kind.
    """
    module_name, _, attribute = place.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{noun} {place!r}: {error}; install it, or name its folder in PYTHONPATH"
        ) from None
    found = getattr(module, attribute, None)
    if not isinstance(found, kind):
        raise UsageError(f"{noun} {place!r}: {module_name} has no {kind.__name__} {attribute!r}")
    return found


def module_summary(module_name: str) -> str:
    """Return the first sentence of a module's docstring; the module is not imported."""
    spec = importlib.util.find_spec(module_name)
    if spec is None or spec.origin is None:
        return ""
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].rstrip(".")

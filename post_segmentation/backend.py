"""What a mask back-end tells of itself (`BackendSpec`), and a back-end with its options chosen
(`Backend`). Nothing here loads a model or imports a heavy package.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ConfigDict, TypeAdapter, ValidationError

from post_segmentation.propagator import Propagator
from post_segmentation.weights import fingerprint
from seg_common.errors import UsageError
from seg_common.validation import first_mistake

_OURS = ("post_segmentation", "seg_research", "seg_common")


class PromptKind(StrEnum):
    """A way to tell a back-end where an object is."""

    BOX = "boxes"
    POINTS = "points"
    NEGATIVE_POINTS = "negative points"
    MASK = "masks"


class NeededPackage(NamedTuple):
    """A Python package that a back-end imports, and how to get it."""

    module: str
    install: str


class BackendOption(NamedTuple):
    """One option of a back-end, as `--help` and documents show it."""

    name: str
    help: str
    metavar: str

    @property
    def flag(self) -> str:
        """Return its flag on the command line."""
        return f"--{self.name.replace('_', '-')}"


class BackendConfig:
    """Base of the options of a back-end: a frozen dataclass whose fields carry a `help` text.

    `option` declares a field. Values are checked by `BackendSpec.configure`.
    """

    __slots__ = ()
    __pydantic_config__ = ConfigDict(extra="forbid")


def describe(help_text: str, metavar: str = "VALUE") -> Mapping[str, str]:
    """Return the metadata of an option's dataclass field."""
    return {"help": help_text, "metavar": metavar}


def _no_weights(_: Any) -> tuple[Path, ...]:
    return ()


def _nothing_missing(_: Any) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """A mask back-end: everything that the pipeline, the command line and documents know of it.

    Attributes:
        name: on the command line, and in the manifest of finished masks.
        summary: one line for `--help`.
        config_type: dataclass of its options, each with a default unless it must be given.
        build: makes it; imports what it needs. Importable by name, as worker processes call it.
        prompts: what it can be told of an object.
        packages: that it needs.
        weights: files or folders, found or downloaded, whose content decides the masks.
        on_gpu: computes on a GPU where there is one; such a back-end has an option `device`.
        shares_work: many predictions of one video cost less together.
        preference: place in the order in which back-ends are tried if the user names none; None:
            only used by name.
        missing: what this machine lacks for it; a back-end that lacks something is not chosen
            unless it is named.
    """

    name: str
    summary: str
    config_type: type[BackendConfig]
    build: Callable[[Any], Propagator]
    prompts: frozenset[PromptKind]
    packages: tuple[NeededPackage, ...] = ()
    weights: Callable[[Any], tuple[Path, ...]] = _no_weights
    on_gpu: bool = False
    shares_work: bool = False
    preference: int | None = None
    missing: Callable[[Any], str] = _nothing_missing

    @property
    def options(self) -> tuple[BackendOption, ...]:
        """Return its options in the order of their declaration."""
        return tuple(
            BackendOption(f.name, f.metadata["help"], f.metadata["metavar"])
            for f in fields(self.config_type)  # pyright: ignore[reportArgumentType]
        )

    def configure(self, values: Mapping[str, Any]) -> Backend:
        """Return the back-end with these options; texts of a command line are converted.

        Raises:
            UsageError: an option is unknown, missing or has an unusable value.
        """
        try:
            config = TypeAdapter(self.config_type).validate_python(dict(values))
        except ValidationError as error:
            raise UsageError(self._explain(error)) from None
        return Backend(self, config)

    def _explain(self, error: ValidationError) -> str:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        flag = f"--{name.replace('_', '-')}"
        if first["type"] in ("unexpected_keyword_argument", "unexpected_keyword"):
            known = ", ".join(option.flag for option in self.options) or "no options"
            return f"back-end {self.name} takes no {flag}; it takes {known}"
        if first["type"] in ("missing", "missing_argument"):
            (option,) = (option for option in self.options if option.name == name)
            return f"back-end {self.name} needs {flag}: {option.help}"
        return f"back-end {self.name}: {first_mistake(error, self.config_type)}"


@dataclass(frozen=True, slots=True)
class Backend:
    """A back-end with its options: all it takes to make one, in this process or another."""

    spec: BackendSpec
    config: BackendConfig

    @property
    def name(self) -> str:
        """Return its name on the command line."""
        return self.spec.name

    @property
    def device(self) -> str:
        """Return the device it was told to use: auto, cpu, cuda or cuda:N."""
        return str(getattr(self.config, "device", "auto" if self.spec.on_gpu else "cpu"))

    def identity(self) -> str:
        """Return what tells its masks from another's: name and content of its weights.

        Raises:
            UsageError: weights, or the package that finds them, are missing.
        """
        with self._missing_packages_named():
            weights = (fingerprint(path) for path in self.spec.weights(self.config))
            return " ".join([self.name, *weights])

    def build(self) -> Propagator:
        """Make it; only this back-end's packages are imported.

        Raises:
            UsageError: a package, weights or the device are missing.
        """
        with self._missing_packages_named():
            return self.spec.build(self.config)

    @contextmanager
    def _missing_packages_named(self) -> Generator[None]:
        try:
            yield
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing in _OURS:
                raise
            installs = {package.module: package.install for package in self.spec.packages}
            install = installs.get(missing) or " and ".join(dict.fromkeys(installs.values()))
            raise UsageError(
                f"back-end {self.name} needs {error.name}: {install}; --backend grabcut needs none"
            ) from None

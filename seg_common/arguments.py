"""What the command lines of the project have in common, on top of argparse.

argparse and not Typer: `--help` answers in 50 ms of CPU, of which importing Typer would take
twice as much again, and the declarations, which are most of the code, would stay as long.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from seg_common.errors import UsageError


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows descriptions as they are written, and the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        said = action.help or ""
        has_default = action.default not in (None, [], "") and action.default is not False
        return super()._get_help_string(action) if has_default and "default" not in said else said


class Parser(argparse.ArgumentParser):
    """Refuses what it cannot read with one line, as everything else that the user must change."""

    advice = ""
    """Said behind each refusal, in place of where the options are listed."""
    intermixed = False
    """Whether options may stand between positional arguments; `parse_intermixed_args` then."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Make a parser with `Help`; otherwise as argparse's own."""
        super().__init__(*arguments, **{"formatter_class": Help, **options})

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments.

        Raises:
            UsageError: always.
        """
        # "argument --threads: 0: expected …" says nothing that "--threads 0: expected …" does not.
        plain = re.sub(r"^argument ([^:]+): (?=\S+: expected )", r"\1 ", message)
        advice = self.advice or f"see: {self.prog} --help"
        raise UsageError(f"{plain.removeprefix('argument ')}; {advice}")


def add_job(jobs: Any, name: str, summary: str) -> Parser:
    """Declare one job of a command that has several; `jobs` is what `add_subparsers` returned."""
    return jobs.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")


def at_least(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Return a `type` of whole numbers."""
    expected = f"at least {minimum}" if maximum is None else f"{minimum}..{maximum}"

    def read(text: str) -> int:
        is_whole = re.fullmatch(r"[+-]?\d{1,18}", text.strip()) is not None
        if not is_whole or int(text) < minimum or (maximum is not None and int(text) > maximum):
            raise argparse.ArgumentTypeError(f"{text}: expected {expected}")
        return int(text)

    return read


def number(*, above_zero: bool = False) -> Callable[[str], float]:
    """Return a `type` of finite numbers from 0 on; 0 itself only if not `above_zero`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (0 < value < math.inf or (value == 0 and not above_zero)):
            expected = "a number above 0" if above_zero else "a number of at least 0"
            raise argparse.ArgumentTypeError(f"{text}: expected {expected}")
        return value

    return read


def chosen(kind: type[Any], options: argparse.Namespace) -> dict[str, Any]:
    """Pick the options that are fields of a dataclass, by their names."""
    names = [field.name for field in dataclasses.fields(kind)]
    return {name: getattr(options, name) for name in names if hasattr(options, name)}

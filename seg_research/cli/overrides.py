"""What the commands that are configured by Hydra overrides have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seg_common.arguments import Parser
from seg_common.errors import UsageError


def add_override_arguments(parser: Parser, example: str, shown: str) -> None:
    """Declare the overrides, and `--dry-run`, which shows `shown` beside the values."""
    parser.intermixed = True
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help=f"Hydra overrides, e.g. {example}"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help=(
            f"check everything; print each value that is not verl's default, its origin, {shown};"
            " stop"
        ),
    )


def check_overrides(overrides: Sequence[str], command: str) -> None:
    """Refuse what is not an override.

    Raises:
        UsageError: an argument is not KEY=VALUE.
    """
    loose = [o for o in overrides if "=" not in o and not o.startswith("~")]
    if loose:
        raise UsageError(f"'{loose[0]}' is not KEY=VALUE; see: seg-research {command} --help")


def show_origins(rows: Sequence[tuple[str, str, str]], remarks: Iterable[str]) -> None:
    """Print (key, value, origin) as a table, and the remarks below it."""
    width = max(len(key) for key, _, _ in rows)
    for key, value, origin in rows:
        print(f"{key:<{width}}  {value:<40}  {origin}")
    print("", *remarks, "Nothing was started (--dry-run).", sep="\n")

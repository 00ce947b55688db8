"""Bring the tables of docs/mini.md up to date: its numbers come from docs/results/mini.md and from
the acceptance checks of the packaged weights.

    python examples/train/mini/document.py
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from seg_common.errors import UsageError
from seg_common.files import write_atomic
from seg_research.mini import COLD_START

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "mini.md"
RESULTS = ROOT / "docs" / "results" / "mini.md"
CHECKS = COLD_START / "acceptance_checks.json"
_BLOCK = re.compile(r"(<!-- generated: (?P<name>[\w ]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)
_COLUMNS = 6
"""Of the results' table; the others are of sampled episodes' details."""


def main() -> int:
    """Write the document."""
    write_atomic(DOCUMENT, filled(DOCUMENT.read_text(encoding="utf-8")))
    print(f"written: {DOCUMENT}")
    return 0


def filled(document: str) -> str:
    """Return the document with all generated blocks made again.

    Raises:
        UsageError: a block has a name that nothing is generated for.
    """
    results = RESULTS.read_text(encoding="utf-8")
    tables = {
        "acceptance checks": acceptance_table(json.loads(CHECKS.read_text(encoding="utf-8"))),
        "after training": _first_columns(table_of(results, "After training"), _COLUMNS),
        "claims": table_of(results, "Claims"),
    }

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in tables:
            raise UsageError(f"{DOCUMENT}: no table {name!r}; there are {', '.join(tables)}")
        return f"{match[1]}{tables[name]}\n{match[3]}"

    return _BLOCK.sub(fill, document)


def acceptance_table(report: dict[str, Any]) -> str:
    """Write the checks with what was wanted, J&F of each condition, and the targets named by
    ability.
    """
    lines = [f"| on {report['questions']} questions | reached | wanted |", "|---|---:|---:|"]
    for check in report["checks"]:
        lines.append(f"| {check['name']} | {check['value']:.2f} | {check['wanted']:g} |")
    for name, score in report["J&F"].items():
        lines.append(f"| J&F: {name} | {score:.1f} | |")
    for ability, found in report["abilities"].items():
        lines.append(f"| right target named: {ability} | {found['named']:.2f} | |")
    return "\n".join(lines)


def table_of(page: str, heading: str) -> str:
    """Return the table under a heading of a page.

    Raises:
        UsageError: there is no such heading, or no table under it.
    """
    _, found, rest = page.partition(f"\n## {heading}\n")
    section = rest.partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    if not found or not rows:
        raise UsageError(f"{RESULTS}: no table under the heading {heading!r}")
    return "\n".join(rows)


def _first_columns(table: str, count: int) -> str:
    rows = [line.strip("|").split("|")[:count] for line in table.splitlines()]
    return "\n".join(f"|{'|'.join(row)}|" for row in rows)


if __name__ == "__main__":
    sys.exit(main())

"""Check this installation: versions, what we rely on in verl, the CPU platform, the offline search
encoder, room on the machine.

Each problem comes with what to do about it. The exit status is 1 if something cannot work, 0
otherwise; parts that nobody installed are named but are no problem.
"""

from __future__ import annotations

import argparse
import dataclasses
import json

EXAMPLES = """examples:
  seg-research doctor               a table, and what to do about each problem
  seg-research doctor --json        the same for programs
"""

_SIGNS = {"ok": "ok", "absent": "-", "warning": "!", "problem": "X"}
_TOPIC_WIDTH, _FOUND_WIDTH = 25, 160


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of the table"
    )


def run(options: argparse.Namespace) -> int:
    """Examine, print, and tell by the exit status whether all can work."""
    from seg_research.training.doctor import Finding, Severity, examine

    findings: list[Finding] = []
    for finding in examine():
        findings.append(finding)
        if not options.json:
            print(_row(**dataclasses.asdict(finding)), flush=True)
    problems = sum(f.severity is Severity.PROBLEM for f in findings)
    warnings = sum(f.severity is Severity.WARNING for f in findings)
    if options.json:
        print(
            json.dumps(
                {"ok": not problems, "findings": [dataclasses.asdict(f) for f in findings]},
                indent=1,
            )
        )
    else:
        print(
            f"\n{problems} problems (X), {warnings} warnings (!)"
            + ("" if problems else ": this installation can do its work")
        )
    return 1 if problems else 0


def _row(topic: str, severity: str, found: str, wanted: str, advice: str) -> str:
    row = f"{_SIGNS[severity]:>2}  {topic:<{_TOPIC_WIDTH}} {found[:_FOUND_WIDTH]}" + (
        f"  (wanted: {wanted})" if wanted else ""
    )
    return row + (f"\n    {'':<{_TOPIC_WIDTH}} → {advice}" if advice else "")

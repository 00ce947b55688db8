"""The terms of a rubric as a table for documents, made from what stands beside each term."""

from __future__ import annotations

from collections.abc import Sequence

from seg_research.rewards.rubric import Factor, PaidWhen, Term

_PAID = {
    PaidWhen.ALWAYS: "always",
    PaidWhen.WITH_STEPS: "with steps",
    PaidWhen.WITHOUT_STEPS: "without steps",
}


def term_table(terms: Sequence[Term], factors: Sequence[Factor] = ()) -> str:
    """Return a Markdown table, one row a term or factor."""
    rows = [
        f"| `{term.name}` | {term.role} | {_PAID[term.when]} | {term.weight:g} | {term.doc} |"
        for term in terms
    ]
    rows += [f"| `{factor.name}` | factor | always | × | {factor.doc} |" for factor in factors]
    return (
        "\n".join(["| term | role | paid | weight | pays |", "|---|---|---|---|---|", *rows]) + "\n"
    )

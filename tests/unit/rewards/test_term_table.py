"""The tables of terms in the documents are those of the code."""

from pathlib import Path

from seg_research.recipes.seg_research.reward_settings import RewardSettings
from seg_research.recipes.seg_research.rewards import all_terms
from seg_research.rewards.rubric import Factor, Term
from seg_research.rewards.term_table import term_table

PAGE = Path(__file__).parents[3] / "docs" / "rewards.md"


class Brevity:
    """Something to be named."""

    name = "brevity"

    def __call__(self, transcript, truth):
        return 1.0


def test_the_page_has_the_table_of_the_code():
    text = PAGE.read_text(encoding="utf-8")
    _, _, rest = text.partition("<!-- terms: ")
    table = rest.partition("-->\n")[2].partition("<!-- end of terms -->")[0]
    assert table == term_table(all_terms(RewardSettings())), "copy the table of the code there"


def test_a_factor_stands_behind_the_terms():
    brevity = Brevity()
    table = term_table([Term(brevity, 0.25, "short")], [Factor(brevity, "halves")])
    assert table.splitlines()[2:] == [
        "| `brevity` | outcome | always | 0.25 | short |",
        "| `brevity` | factor | always | × | halves |",
    ]

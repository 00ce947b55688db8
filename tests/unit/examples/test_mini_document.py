"""docs/mini.md repeats no number by hand that is generated elsewhere."""

import importlib.util
from pathlib import Path

import pytest

from seg_common.errors import UsageError

MINI = Path(__file__).parents[3] / "examples" / "train" / "mini"
PAGE = "# Page\n\n## Claims\n\n| claim | seen |\n|---|---|\n| a | 1 |\n\n## Next\n\n| b | 2 |\n"


@pytest.fixture(scope="module")
def document():
    spec = importlib.util.spec_from_file_location("mini_document", MINI / "document.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_the_document_are_up_to_date(document):
    """If not: python examples/train/mini/document.py."""
    text = document.DOCUMENT.read_text()
    assert document.filled(text) == text
    assert text.count("<!-- generated: ") == text.count("<!-- /generated -->") == 3


def test_a_number_that_was_changed_by_hand_is_set_right(document):
    text = document.DOCUMENT.read_text()
    changed = text.replace("| cold_start | 51.5 |", "| cold_start | 91.5 |")
    assert changed != text
    assert document.filled(changed) == text


def test_a_table_is_taken_from_under_its_heading_alone(document):
    assert document.table_of(PAGE, "Claims").splitlines()[-1] == "| a | 1 |"
    with pytest.raises(UsageError, match="no table under the heading 'Gone'"):
        document.table_of(PAGE, "Gone")


def test_a_block_of_an_unknown_name_is_refused(document):
    with pytest.raises(UsageError, match="no table 'other'"):
        document.filled("<!-- generated: other -->\n<!-- /generated -->")

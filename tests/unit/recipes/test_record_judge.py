"""Recorded rollouts judged again: by any recipe's rubric, and by one that has several definitions."""

import pytest

from seg_common.errors import UsageError
from seg_research.core.prediction import Prediction
from seg_research.data.sample import GroundTruth
from seg_research.episode.transcript import StopReason, Transcript
from seg_research.evaluation.score import Rescorer
from seg_research.evaluation.score_summary import RescoreSummary
from seg_research.recipes.recipe import Recipe
from seg_research.recipes.record_judge import OTHER_SETTINGS, RubricJudge
from seg_research.recipes.registry import find_recipe
from seg_research.records.rollouts import Rollout
from seg_research.rewards.rubric import Factor, Rubric, Term, TermRole


class Constant:
    def __init__(self, name, value):
        self.name, self.value = name, value

    def __call__(self, transcript, truth):
        return self.value


def rubric(*, factor=1.0) -> Rubric:
    return Rubric(
        (
            Term(Constant("right", 1.0), 2.0, "the result"),
            Term(Constant("short", 0.5), 1.0, "the way", TermRole.PROCESS),
        ),
        final=lambda transcript: Prediction(answered=True),
        factors=(Factor(Constant("length", factor), "the length"),),
    )


def rollout(**recorded) -> Rollout:
    transcript = Transcript("q", (), (), StopReason.ANSWERED)
    return Rollout(transcript, GroundTruth(), True, recorded, is_foreign=False)


def test_any_rubric_judges_terms_factors_and_the_total():
    (judged,) = RubricJudge(rubric(factor=0.5)).judge([rollout()])
    assert judged.terms == {"right": 1, "short": 0.5, "length": 0.5}
    assert judged.sums == {"process": 0.25}
    assert judged.score == 1.25
    assert list(judged.values)[-1] == "score"


@pytest.fixture
def row(monkeypatch):
    """Return a function that scores one rollout as a line of a file."""

    def run(recorded):
        rescorer = Rescorer(RubricJudge(rubric()), read_action=lambda fields: None)
        monkeypatch.setattr(Rescorer, "_read", lambda self, line: rollout(**recorded))
        (found,) = rescorer.rows([(1, b"")])
        return found

    return run


def test_a_number_that_changed_is_named_and_the_score_follows(row):
    found = row({"right": 0.0, "short": 0.5, "unknown": 3.0, "score": 0.5})
    assert [(d.name, d.recorded, d.found, d.reason) for d in found.disagreements] == [
        ("right", 0.0, 1.0, OTHER_SETTINGS),
        ("score", 0.5, 2.5, "follows from right"),
    ]
    assert found.to_json() == {
        "line": 1,
        "terms": {"right": 1.0, "short": 0.5, "length": 1.0},
        "process": 0.5,
        "score": 2.5,
        "disagreements": [
            {"name": "right", "recorded": 0.0, "reason": OTHER_SETTINGS},
            {"name": "score", "recorded": 0.5, "reason": "follows from right"},
        ],
    }


def test_the_summary_names_whatever_the_rubric_has(row):
    summary = RescoreSummary()
    summary.add(row({"right": 0.0}))
    shown = summary.to_markdown()
    assert "| right | 1.0000 | 1 | 0.0000 | 1 |" in shown
    assert "| length | 1.0000 | 1 | - | 0 |" in shown


def test_a_recipe_with_one_definition_takes_no_mode():
    recipe = find_recipe("seg_research")
    assert isinstance(Recipe.record_judge(recipe), RubricJudge)
    with pytest.raises(UsageError, match="has one definition of its rewards, not 'compat'"):
        Recipe.record_judge(recipe, "compat")


def test_an_unknown_mode_is_refused():
    with pytest.raises(UsageError, match="mode 'strict': expected one of robust, compat"):
        find_recipe("seg_research").record_judge("strict")

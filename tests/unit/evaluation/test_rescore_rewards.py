"""Any recipe's rollouts scored anew: rows in order, nothing lost, every other number told."""

import json
from types import SimpleNamespace

import pytest

from seg_common.errors import UsageError
from seg_research.core.prediction import Prediction
from seg_research.episode.action import Action
from seg_research.evaluation.rescore_rewards import CHUNK_ROWS, rescore
from seg_research.evaluation.rescore_summary import RescoreSummary
from seg_research.recipes.judge import OTHER_SETTINGS, RubricJudge
from seg_research.recipes.recipe import Recipe
from seg_research.rewards.rubric import Factor, Rubric, Term


class NumTurns:
    name = "turns"

    def __call__(self, transcript, truth):
        return float(len(transcript.model_turns))


class Half:
    name = "half"

    def __call__(self, transcript, truth):
        return 0.5


RUBRIC = Rubric(
    (Term(NumTurns(), 1.0, "one a turn"),),
    final=lambda transcript: Prediction(),
    factors=(Factor(Half(), "halves"),),
)
JUDGE = RubricJudge(RUBRIC, lambda fields: Action())
TURN = {"role": "assistant", "text": "go on", "action": {"kind": "x"}}


def line(num_turns=1, **fields):
    told = {"role": "user", "text": "…", "outcome": "ok"}
    turns = [TURN, *([told, TURN] * (num_turns - 1))]
    known = {"schema_version": 2, "id": "a", "stop_reason": "turn_limit", "gts": "{}"}
    return known | {"turns": turns} | fields


def write(path, *lines):
    path.write_text("".join(x if isinstance(x, str) else json.dumps(x) + "\n" for x in lines))
    return path


def test_terms_factors_and_total_are_compared_with_what_was_recorded(tmp_path):
    source = write(tmp_path / "a.jsonl", line(2, rewards={"turns": 2.0, "half": 0.5}, score=3.0))
    (row,) = rescore(source, JUDGE, None, lambda _: None)
    assert row.to_json() == {
        "line": 1,
        "terms": {"turns": 2.0},
        "half": 0.5,
        "score": 1.0,
        "disagreements": [{"name": "score", "recorded": 3.0, "reason": OTHER_SETTINGS}],
    }


def test_a_question_without_truth_agrees_with_everything(tmp_path):
    source = write(tmp_path / "a.jsonl", line(gts=None, rewards={"turns": 7.0}, score=7.0))
    (row,) = rescore(source, JUDGE, None, lambda _: None)
    assert (row.judgement.values["score"], row.disagreements) == (None, ())


def test_rows_keep_their_order_and_a_broken_line_is_told(tmp_path):
    count = 2 * CHUNK_ROWS
    source = write(
        tmp_path / "a.jsonl", *(line(1 + i % 3) for i in range(count)), "{broken\n", "[1]\n"
    )
    summary = RescoreSummary()
    rows = list(rescore(source, JUDGE, tmp_path / "out.json", lambda _: None))
    for row in rows:
        summary.add(row)
    assert [row.line for row in rows] == list(range(1, count + 3))
    scores = [row.to_json()["score"] for row in rows]
    assert scores == [*(0.5 * (1 + i % 3) for i in range(count)), None, None]
    assert ["not valid JSON" in rows[-2].error, "expected a JSON object" in rows[-1].error] == [
        1,
        1,
    ]
    assert (summary.num_rows, summary.num_broken) == (count + 2, 2)
    assert json.loads((tmp_path / "out.json").read_text())["rows"] == [r.to_json() for r in rows]


def test_nothing_is_written_before_the_last_row(tmp_path):
    source, out = write(tmp_path / "a.jsonl", line(), line(), line()), tmp_path / "out.json"
    out.write_text("before")
    rows = rescore(source, JUDGE, out, lambda _: None)
    next(rows)
    rows.close()
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out.json"]


def test_a_recipe_judges_by_its_rubric_and_has_no_other_definitions():
    recipe = SimpleNamespace(
        name="mine", rubric=RUBRIC, grammar=SimpleNamespace(read_action=JUDGE.read_action)
    )
    assert Recipe.judge(recipe) == JUDGE
    with pytest.raises(UsageError, match="recipe 'mine' has one definition"):
        Recipe.judge(recipe, "strict")

"""The learning curve of a trajectory log: means a step, whatever was tried twice, failed, or was
validation.
"""

import json
import os

import pytest

pytest.importorskip("ray", reason="ray comes with the train extra")

from seg_research.records.schema import SCHEMA_VERSION
from seg_research.training.launch.learning_curve import learning_curve


def line(
    step,
    sample,
    score,
    *,
    rollout=0,
    outcomes=(),
    stop="answered",
    validation=False,
    num_search=1,
    well_formed=1.0,
):
    action = {"kind": "claim"} if well_formed else {"kind": "fault"}
    turns = [{"role": "assistant", "text": "x", "action": action}]
    turns += [{"role": "user", "text": "y", "outcome": outcome} for outcome in outcomes]
    return {
        "schema_version": SCHEMA_VERSION,
        "global_step": step,
        "id": sample,
        "sample_idx": rollout,
        "score": score,
        "rewards": {"format": well_formed, "box": 0.5},
        "turns": turns,
        "num_search": num_search,
        "stop_reason": stop,
        "answered": stop == "answered",
        "claims_absent": stop == "answered",
        "num_response_tokens": 10 * step,
        "validation": validation,
    }


def write(run_dir, name, lines, modified_s):
    path = run_dir / "trajectories" / f"worker-{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in lines))
    os.utime(path, (modified_s, modified_s))


def test_each_step_is_the_mean_of_its_episodes(tmp_path):
    write(
        tmp_path,
        1,
        [
            line(2, "a", 1.0),
            line(1, "a", 1.0),
            line(1, "a", 0.0, rollout=1, num_search=3, well_formed=0.0),
        ],
        10,
    )
    write(tmp_path, 2, [line(1, "b", 0.5, stop="no_action")], 10)
    first, second = learning_curve(tmp_path)
    assert (first["step"], first["episodes"], second["step"], second["episodes"]) == (1, 3, 2, 1)
    assert first["reward"] == pytest.approx(0.5)
    assert first["searches"] == pytest.approx(5 / 3)
    assert first["terms"] == {"format": pytest.approx(2 / 3), "box": 0.5}
    assert first["valid"] == pytest.approx(1 / 3), "answered, and no turn was malformed"
    assert first["answered"] == pytest.approx(2 / 3)
    assert first["response_tokens"] == 10


def test_a_term_counts_where_it_ran(tmp_path):
    lines = [line(1, "a", 1.0), line(1, "b", 1.0), line(1, "c", 1.0)]
    for record, value in zip(lines, (None, 1.0, 0.0), strict=True):
        record["rewards"] |= {"guidance": value, "dense_imitation": None}
    write(tmp_path, 1, lines, 10)
    assert learning_curve(tmp_path)[0]["terms"] == {"format": 1.0, "box": 0.5, "guidance": 0.5}


def test_a_recipe_of_other_terms_has_a_curve_too(tmp_path):
    record = line(1, "a", 1.0) | {"rewards": {"hit": 0.5}}
    write(tmp_path, 1, [record], 10)
    (row,) = learning_curve(tmp_path)
    assert (row["terms"], row["valid"]) == ({"hit": 0.5}, 1.0)


def test_tool_success_counts_what_reached_a_tool(tmp_path):
    write(
        tmp_path,
        1,
        [line(1, "a", 1.0, outcomes=("ok", "empty", "rejected", "fault")), line(1, "b", 1.0)],
        10,
    )
    assert learning_curve(tmp_path)[0]["tool_success"] == pytest.approx(2 / 3)


def test_of_a_step_that_was_tried_twice_the_later_attempt_counts(tmp_path):
    write(tmp_path, 9, [line(1, "a", 0.0), line(2, "a", 0.0)], 10)
    write(tmp_path, 1, [line(2, "a", 1.0)], 20)
    assert [row["reward"] for row in learning_curve(tmp_path)] == [0.0, 1.0]
    assert [row["episodes"] for row in learning_curve(tmp_path)] == [1, 1]


def test_what_says_nothing_about_the_policy_in_training_is_left_out(tmp_path):
    write(
        tmp_path,
        1,
        [line(1, "a", 1.0), line(1, "b", None, stop="infra"), line(1, "v", 0.0, validation=True)],
        10,
    )
    (row,) = learning_curve(tmp_path)
    assert (row["episodes"], row["reward"]) == (1, 1.0)


def test_a_run_without_episodes_has_no_curve(tmp_path):
    assert learning_curve(tmp_path) == []

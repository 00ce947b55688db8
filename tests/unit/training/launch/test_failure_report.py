"""What is left to look at when a run was stopped."""

import json

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

from seg_common.files import read_jsonl
from seg_research.training.launch.failure_report import WORST_FILE, save_worst


def record(
    sample: str, score: float | None, *, step: int = 2, tokens: int = 10, validation: bool = False
) -> dict:
    return {
        "id": sample,
        "score": score,
        "global_step": step,
        "num_response_tokens": tokens,
        "validation": validation,
    }


@pytest.fixture
def run_dir(tmp_path):
    def write(*workers):
        (tmp_path / "trajectories").mkdir()
        for number, records in enumerate(workers):
            lines = "".join(json.dumps(r) + "\n" for r in records)
            (tmp_path / "trajectories" / f"worker-{number}.jsonl").write_text(lines)
        return tmp_path

    return write


def test_failures_come_first_then_the_least_rewarded_the_longest_among_equals(run_dir):
    folder = run_dir(
        [
            record("old", -9, step=1),
            record("a", 0.0),
            record("b", 0.0, tokens=99),
            record("c", 0.5),
        ],
        [record("d", 0.2), record("e", None), record("val", -1, validation=True)],
    )
    assert save_worst(folder) == folder / WORST_FILE
    assert [r["id"] for r in read_jsonl(folder / WORST_FILE)] == ["e", "b", "a"]


def test_each_question_is_shown_once_with_its_worst_rollout(run_dir):
    folder = run_dir([record("a", 0.1), record("a", 0.0), record("b", 0.3)])
    save_worst(folder)
    assert [(r["id"], r["score"]) for r in read_jsonl(folder / WORST_FILE)] == [
        ("a", 0.0),
        ("b", 0.3),
    ]


def test_a_line_that_a_killed_worker_left_half_written_is_no_obstacle(run_dir):
    folder = run_dir([record("a", 0.1)])
    with (folder / "trajectories" / "worker-0.jsonl").open("a") as handle:
        handle.write('{"id": "b", "sco')
    save_worst(folder)
    assert [r["id"] for r in read_jsonl(folder / WORST_FILE)] == ["a"]


def test_a_run_that_stopped_before_its_first_episode_leaves_nothing(tmp_path):
    assert save_worst(tmp_path) is None
    assert not (tmp_path / WORST_FILE).exists()

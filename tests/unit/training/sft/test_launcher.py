"""Around verl's SFT trainer: what is said before it starts, what a run that goes on must not find
changed, and a loss that is none.
"""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

from seg_common.errors import InfraError, UsageError
from seg_research.cli.main import main
from seg_research.training.sft.config import compose_sft
from seg_research.training.sft.episodes import SftSettings
from seg_research.training.sft.launcher import _keep, _watch, finished_sft
from seg_research.training.sft.prepare import encode_files


@pytest.fixture
def episodes(tmp_path):
    def write(count, name="episodes.jsonl", said="<answer> x </answer>"):
        line = {
            "schema_version": 1,
            "prompt": [{"role": "user", "text": "which?"}],
            "stop_reason": "answered",
        }
        turns = [{"role": "assistant", "text": said}]
        path = tmp_path / name
        path.write_text(
            "".join(json.dumps({**line, "id": str(i), "turns": turns}) + "\n" for i in range(count))
        )
        return path

    return write


def arguments(model, episodes, run_dir, *more):
    return [
        "model=tiny",
        "hardware=cpu",
        f"model.path={model}",
        f"data.train_files={episodes}",
        f"seg.run_dir={run_dir}",
        *more,
    ]


def test_a_dry_run_tells_values_origins_and_episodes_and_writes_nothing(
    tiny_folder, episodes, tmp_path, capsys
):
    given = arguments(tiny_folder, episodes(50), tmp_path / "run")
    assert main(["sft", *given, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "sft/model/tiny.yaml" in shown
    assert "train_files: 50 episodes" in shown
    assert "4 steps of 24 episodes" in shown
    assert not (tmp_path / "run").exists()


def test_a_model_of_a_hub_is_not_fetched_for_a_dry_run(episodes, tmp_path, capsys):
    given = ["model=qwen3vl_8b", "hardware=8x80g", f"data.train_files={episodes(2)}", "--dry-run"]
    assert main(["sft", *given]) == 0
    assert (
        "Qwen/Qwen3-VL-8B-Instruct is not on this machine, so its tokens are not counted; 1 file(s)"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["stray"], "'stray' is not KEY=VALUE"),
        (["data.train_files=nowhere.jsonl"], "nowhere.jsonl: no such file; write episodes with"),
        (["model.path=/nowhere/model"], "no config.json there"),
        ([], "data.train_batch_size=24, but there are only 3 episodes"),
    ],
)
def test_bad_input_is_one_line(tiny_folder, episodes, tmp_path, capsys, more, message):
    assert main(["sft", *arguments(tiny_folder, episodes(3), tmp_path / "run", *more)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("seg-research: ")
    assert message in error
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_with_the_same_episodes_only(tiny_processor, episodes, tmp_path):
    first, other = (
        encode_files([episodes(2, said=said)], tiny_processor, SftSettings(), 64, 0)
        for said in ("a", "b")
    )
    path = tmp_path / "run" / "train.parquet"
    assert _keep(path, first) == _keep(path, first) == path
    with pytest.raises(UsageError, match="its episodes or their encoding have changed"):
        _keep(path, other)


def test_which_runs_are_finished(tiny_folder, episodes, tmp_path):
    given = arguments(tiny_folder, episodes(2), tmp_path / "run")
    policy = tmp_path / "run" / "policy"
    assert finished_sft(compose_sft(given)) is None
    policy.mkdir(parents=True)
    (policy / "training.json").write_text('{"step": 6, "wanted": 6}')
    assert finished_sft(compose_sft(given)) is None, (
        "it was stopped at step 6 on purpose; now all epochs are wanted"
    )
    assert finished_sft(compose_sft([*given, "trainer.total_training_steps=7"])) is None
    assert finished_sft(compose_sft([*given, "trainer.total_training_steps=5"])) == policy
    (policy / "training.json").write_text('{"step": 8, "wanted": null}')
    assert finished_sft(compose_sft(given)) == policy


def test_a_loss_that_is_not_a_number_ends_the_run(tmp_path):
    rows = [{"step": 1, "data": {"train/loss": 2.0}}, {"step": 2, "data": {"train/loss": None}}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = []
    with pytest.raises(InfraError, match=r"step 2: the loss is not a number; lower optim\.lr"):
        _watch(
            [SimpleNamespace(poll=lambda: None)], tmp_path, lambda step, metrics: told.append(step)
        )
    assert told == [1]


def test_one_failed_process_ends_the_waiting(tmp_path):
    _watch(
        [SimpleNamespace(poll=lambda: None), SimpleNamespace(poll=lambda: 1)],
        tmp_path,
        lambda step, metrics: None,
    )

"""The launcher, with a few lines of Python in the place of verl's trainer: what it starts, shows,
stops, keeps and explains.

Longer than 400 lines because each ending of a run has its own stand-in for the trainer.
"""

import fcntl
import json
import os
import signal
import time
from pathlib import Path

import pytest

from seg_research.mini.tiny_settings import tiny_settings
from seg_research.recipes.registry import load_settings

pytest.importorskip("verl", reason="verl comes with the train extra")

from omegaconf import OmegaConf

from seg_common.errors import InfraError, UsageError
from seg_research.training.launch import run_folder, trainer_process
from seg_research.training.launch.config import compose_config
from seg_research.training.launch.launcher import finished_policy, launch, ppo_environment
from seg_research.training.launch.run_folder import repair_tracker
from seg_research.training.launch.trainer_process import last_error

URL = "http://127.0.0.1:9"

FAKE = """
import json, os, pathlib, signal, subprocess, sys, time
run = pathlib.Path(sys.argv[sys.argv.index("--config-path") + 1])

def step(number, **metrics):
    with open(os.environ["VERL_FILE_LOGGER_PATH"], "a") as file:
        file.write(json.dumps({"step": number, "data": metrics}) + "\\n")

def checkpoint(number):
    folder = run / "checkpoints" / f"global_step_{number}" / "actor" / "huggingface"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "weights").write_text(str(number))
    (run / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(str(number))

def main():
    exec(os.environ["FAKE_TRAINER"], globals())
"""


@pytest.fixture(scope="module")
def composed(mini, tiny_folder):
    given = {
        "data.train_files": mini.parquet("train"),
        "data.val_files": mini.parquet("val"),
        "actor_rollout_ref.model.path": tiny_folder,
        "seg.search.text": mini.text,
        "trainer.total_training_steps": 2,
    }
    return compose_config([f"{key}={value}" for key, value in given.items()])


@pytest.fixture
def config(composed, tmp_path):
    """A run in a folder of its own."""
    mine = composed.copy()
    mine.seg.run_dir = str(tmp_path / "run")
    return mine


@pytest.fixture
def run_dir(config) -> Path:
    return Path(config.seg.run_dir)


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """Return a function that says what the trainer does."""
    package = tmp_path / "fake" / "verl" / "trainer"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    (package / "main_ppo.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(package.parents[1]))
    return lambda code: monkeypatch.setenv("FAKE_TRAINER", code)


def silent(step, metrics):
    pass


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until(condition, seconds: float = 120.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.02)


def test_a_run_shows_each_step_and_leaves_a_policy(config, run_dir, trainer):
    trainer(
        "step(1, **{'critic/score/mean': 0.5, 'undefined': None}); step(2, **{'critic/score/mean':"
        " 0.75}); checkpoint(2)"
    )
    seen = []
    policy = launch(config, URL, lambda step, metrics: seen.append((step, metrics)))
    assert seen == [(1, {"critic/score/mean": 0.5}), (2, {"critic/score/mean": 0.75})]
    assert policy == run_dir / "policy"
    assert (policy / "weights").read_text() == "2"
    assert (policy / "preprocessor_config.json").is_file(), (
        "verl saves the tokenizer, not the image processor"
    )
    assert load_settings(policy) == tiny_settings()


def test_the_trainer_is_given_the_whole_configuration_with_the_address_of_the_server(
    config, run_dir, trainer
):
    trainer(
        "checkpoint(2); print(sys.argv[1:], os.environ['VERL_PLATFORM'],"
        " os.environ['VERL_USE_EXTERNAL_MODULES'])"
    )
    launch(config, URL, silent)
    resolved = OmegaConf.load(run_dir / "resolved.yaml")
    assert resolved.seg.search.url == URL
    assert resolved.actor_rollout_ref.rollout.agent.agent_loop_config_path == str(
        run_dir / "agent_loops.yaml"
    )
    OmegaConf.resolve(resolved)
    log = (run_dir / "trainer.log").read_text()
    assert f"'--config-path', '{run_dir}', '--config-name', 'resolved'" in log
    assert "cpu seg_research.training.plugin" in log


def test_a_finished_run_is_recognised_until_more_steps_are_wanted(config, run_dir, trainer):
    trainer("checkpoint(2)")
    assert finished_policy(config) is None
    policy = launch(config, URL, silent)
    assert finished_policy(config) == policy
    config.trainer.total_training_steps = 4
    assert finished_policy(config) is None
    trainer("checkpoint(4)")
    assert launch(config, URL, silent) == policy
    assert (policy / "weights").read_text() == "4"


def test_a_run_that_was_killed_after_its_last_checkpoint_is_only_exported(config, run_dir, trainer):
    trainer("checkpoint(2); raise SystemExit(7)")
    with pytest.raises(InfraError):
        launch(config, URL, silent)
    trainer("raise SystemExit('must not be started')")
    assert (launch(config, URL, silent) / "weights").read_text() == "2"


def test_another_attempt_keeps_the_metrics_and_mends_the_log_of_the_one_before(
    config, run_dir, trainer
):
    trainer("step(1, reward=0.5); raise SystemExit(1)")
    for _ in range(2):
        with pytest.raises(InfraError):
            launch(config, URL, silent)
    log = run_dir / "trajectories" / "worker-1.jsonl"
    log.parent.mkdir()
    log.write_text('{"id": "a"}\n{"id": "b"')
    trainer("step(2, reward=0.75); checkpoint(2)")
    launch(config, URL, silent)
    kept = sorted(run_dir.glob("metrics*.jsonl"))
    assert [path.name for path in kept] == ["metrics.0.jsonl", "metrics.1.jsonl", "metrics.jsonl"]
    assert json.loads(kept[0].read_text())["step"] == 1
    assert json.loads(kept[2].read_text())["step"] == 2
    assert log.read_text() == '{"id": "a"}\n'


def test_a_trainer_that_fails_is_explained_by_the_last_error_of_its_own_log(
    config, run_dir, trainer
):
    trainer("raise KeyError('an old one')")
    with pytest.raises(InfraError, match="KeyError: 'an old one'"):
        launch(config, URL, silent)
    trainer("print('working'); raise ValueError('the actor does not fit')")
    with pytest.raises(InfraError) as error:
        launch(config, URL, silent)
    first, log = str(error.value).splitlines()
    assert first == "the trainer ended with exit code 1: ValueError: the actor does not fit"
    assert str(run_dir / "trainer.log") in log
    trainer("os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(
        InfraError, match="exit code -9: no error was logged; the system may have run out of memory"
    ):
        launch(config, URL, silent)


SLOW_RAY = """
starts = run / "starts"
starts.write_text(str(int(starts.read_text()) + 1 if starts.exists() else 1))
if int(starts.read_text()) <= FAILURES:
    LOGGED
    raise Exception("The current node timed out during startup. This could happen because ...")
checkpoint(2)
"""


def test_a_trainer_whose_ray_does_not_come_up_in_time_is_started_again(
    config, run_dir, trainer, caplog
):
    trainer(SLOW_RAY.replace("FAILURES", "2").replace("LOGGED", "pass"))
    launch(config, URL, silent)
    assert (run_dir / "starts").read_text() == "3"
    warnings = [record.getMessage() for record in caplog.records]
    assert [text.rpartition("started again ")[2] for text in warnings] == ["(2 of 3)", "(3 of 3)"]
    assert all("Ray did not start" in text for text in warnings)


@pytest.mark.parametrize(
    ("logged", "starts"),
    [("pass", "3"), ("print('(TaskRunnerV1 pid=7) step 1')", "1")],
    ids=["never up", "lost after it was up"],
)
def test_a_trainer_is_not_started_again_for_ever_nor_for_another_reason(
    config, run_dir, trainer, logged, starts
):
    trainer(SLOW_RAY.replace("FAILURES", "9").replace("LOGGED", logged))
    with pytest.raises(InfraError, match="exit code 1: Exception: The current node timed out"):
        launch(config, URL, silent)
    assert (run_dir / "starts").read_text() == starts


def test_a_run_that_ends_without_a_checkpoint_is_a_failure(config, trainer):
    trainer("step(1)")
    with pytest.raises(InfraError, match="without a checkpoint"):
        launch(config, URL, silent)


STOPPED = """
DEAF
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
(run / "pids").write_text(f"{os.getpid()} {child.pid}")
(run / "stopped.txt").write_text("tool keyframe worked in 0 of 64 calls\\n")
time.sleep(600)
"""
DEAF = "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)"


@pytest.mark.parametrize("deaf", ["", DEAF], ids=["obedient", "deaf"])
def test_a_guard_stops_the_trainer_and_all_it_started(config, run_dir, trainer, monkeypatch, deaf):
    monkeypatch.setattr(trainer_process, "_GRACE_S", 0.3)
    trainer(STOPPED.replace("DEAF", deaf))
    with pytest.raises(
        UsageError, match="the run was stopped: tool keyframe worked in 0 of 64 calls"
    ):
        launch(config, URL, silent)
    for pid in map(int, (run_dir / "pids").read_text().split()):
        wait_until(lambda pid=pid: not is_running(pid))


def test_a_reason_left_just_before_the_trainer_ended_is_told_too(config, trainer):
    trainer("(run / 'stopped.txt').write_text('search server down'); raise SystemExit(1)")
    with pytest.raises(UsageError, match="the run was stopped: search server down"):
        launch(config, URL, silent)


def test_a_stopped_run_leaves_its_worst_trajectories_and_the_next_attempt_clears_them(
    config, run_dir, trainer
):
    folder = run_dir / "trajectories"
    folder.mkdir(parents=True)
    record = {"id": "a", "score": 0.0, "global_step": 1, "validation": False}
    (folder / "worker-1.jsonl").write_text(json.dumps(record) + "\n")
    trainer("(run / 'stopped.txt').write_text('nothing is learnt'); raise SystemExit(1)")
    with pytest.raises(UsageError, match="nothing is learnt") as error:
        launch(config, URL, silent)
    worst = run_dir / "worst_trajectories.jsonl"
    assert f"worst trajectories: {worst}; to see them: seg-research report --run {run_dir}" in str(
        error.value
    )
    assert json.loads(worst.read_text()) == record
    trainer("step(1); checkpoint(1)")
    launch(config, URL, silent)
    assert not worst.exists()


def test_an_interrupted_launcher_stops_its_trainer(config, run_dir, trainer):
    trainer("(run / 'pids').write_text(str(os.getpid())); step(1); time.sleep(600)")

    def interrupt(step, metrics):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(config, URL, interrupt)
    assert not is_running(int((run_dir / "pids").read_text()))


def test_a_folder_in_use_is_left_alone(config, run_dir, trainer, monkeypatch):
    monkeypatch.setattr(run_folder, "_PATIENCE_S", 0.2)
    trainer("checkpoint(2)")
    run_dir.mkdir()
    with (run_dir / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another process is training here"):
            launch(config, URL, silent)
    launch(config, URL, silent)


def test_the_trainer_holds_the_folder_even_when_its_launcher_was_killed(config, run_dir, trainer):
    trainer("(run / 'pids').write_text(str(os.getpid())); time.sleep(600)")
    launcher = os.fork()
    if not launcher:
        launch(config, URL, silent)
        os._exit(0)
    wait_until(lambda: (run_dir / "pids").is_file() and (run_dir / "pids").read_text())
    os.kill(launcher, signal.SIGKILL)
    os.waitpid(launcher, 0)
    pid = int((run_dir / "pids").read_text())
    with (run_dir / ".lock").open("w") as handle:
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_running(pid))
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.seed", 1),
        ("seg.search.text", "other.jsonl"),
        ("actor_rollout_ref.actor.optim.lr", 0.5),
    ],
)
def test_a_folder_of_another_run_is_refused_and_the_difference_named(
    config, run_dir, trainer, key, value
):
    trainer("checkpoint(2)")
    launch(config, URL, silent)
    OmegaConf.update(config, key, value)
    for start in (lambda: launch(config, URL, silent), lambda: finished_policy(config)):
        with pytest.raises(UsageError, match="holds a run with other settings") as error:
            start()
        assert key in str(error.value)


def test_a_run_may_go_on_with_more_threads_and_a_server_elsewhere(config, trainer):
    trainer("raise SystemExit(1)")
    with pytest.raises(InfraError):
        launch(config, URL, silent)
    config.seg.threads, config.seg.search.url, config.seg.search.deadline_s = (
        1,
        "http://127.0.0.1:10",
        5.0,
    )
    trainer("checkpoint(2)")
    launch(config, URL, silent)


def test_the_cpu_platform_is_asked_for_on_cpus_only(config, tiny_folder):
    on_cpu = ppo_environment(config)
    assert (on_cpu["VERL_PLATFORM"], on_cpu["OMP_NUM_THREADS"], on_cpu["HF_HUB_OFFLINE"]) == (
        "cpu",
        "2",
        "1",
    )
    config.trainer.device = "cuda"
    config.actor_rollout_ref.model.path = "Qwen/Qwen3-VL-4B-Instruct"
    before = {"VERL_PLATFORM", "HF_HUB_OFFLINE"} & os.environ.keys()
    assert {"VERL_PLATFORM", "HF_HUB_OFFLINE"} & ppo_environment(config).keys() == before


@pytest.mark.parametrize(
    ("log", "found"),
    [
        ("a\nValueError: first\nb\nRuntimeError: last\nc", "RuntimeError: last"),
        (
            "\x1b[36m(TaskRunner pid=1)\x1b[0m ray.exceptions.RayTaskError(InfraError): ray::run()",
            "ray.exceptions.RayTaskError(InfraError)",
        ),
        (
            "RuntimeError: last\n    raise ValueError(f'{x}') from None\nsome Errors: none",
            "RuntimeError: last",
        ),
        ("step 1 finished without any error", "no error was logged"),
        ("", "no error was logged"),
        ("OSError: " + "x" * 1000, "OSError: " + "x" * 391),
    ],
)
def test_the_last_error_of_a_log_is_one_short_line(tmp_path, log, found):
    (tmp_path / "log").write_text(log)
    assert found in last_error(tmp_path / "log")
    assert len(last_error(tmp_path / "log")) <= 400


@pytest.mark.parametrize(("whole", "expected"), [((1, 2), "2"), ((), None)])
def test_the_number_of_the_last_checkpoint_is_mended_where_it_was_cut_short(
    tmp_path, whole, expected
):
    tracker = tmp_path / "latest_checkpointed_iteration.txt"
    tracker.write_text("")
    (tmp_path / "global_step_3" / "actor").mkdir(parents=True)  # begun, and without data.pt
    for number in whole:
        (tmp_path / f"global_step_{number}").mkdir()
        (tmp_path / f"global_step_{number}" / "data.pt").write_text("")
    repair_tracker(tmp_path)
    assert (tracker.read_text() if tracker.exists() else None) == expected


def test_a_sound_number_of_the_last_checkpoint_is_left_as_it_is(tmp_path):
    tracker = tmp_path / "latest_checkpointed_iteration.txt"
    tracker.write_text("1")
    (tmp_path / "global_step_2").mkdir()
    (tmp_path / "global_step_2" / "data.pt").write_text("")
    repair_tracker(tmp_path)
    assert tracker.read_text() == "1"

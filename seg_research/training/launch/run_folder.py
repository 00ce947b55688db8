"""The folder of a run: whose it is, who is in it, what an interrupted attempt left there, and the
policy that it ends with.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from seg_common.errors import UsageError
from seg_common.files import repair_jsonl, write_atomic
from seg_research.recipes.settings import EpisodeSettings
from seg_research.training.launch.config import leaves
from seg_research.training.launch.failure_report import WORST_FILE
from seg_research.training.run_contract import STOP_FILE, TRAJECTORIES

METRICS_FILE = "metrics.jsonl"
TRAINER_LOG = "trainer.log"

_MAY_CHANGE = frozenset(
    {
        "trainer.total_training_steps",
        "seg.run_dir",
        "seg.search.url",
        "seg.search.deadline_s",
        "seg.episode.search.url",
        "seg.episode.search.deadline_s",
        "seg.threads",
        "seg.rollout.sync_timeout_s",
        "seg.search.max_calls_per_run",
        "seg.search.max_calls_per_day",
        "seg.search.max_usd_per_run",
        "seg.search.max_usd_per_day",
    }
)
"""Settings with which an interrupted run may go on."""

_TRACKER = "latest_checkpointed_iteration.txt"
_STEP_FILE = "training.json"
_PATIENCE_S = 40.0
_POLL_S = 0.25


def claim(run_dir: Path, config: DictConfig) -> None:
    """Take the folder for this run; settings that say nothing about what is trained may differ from
    an earlier attempt's.

    Raises:
        UsageError: the folder holds another run.
    """
    mine = _comparable(OmegaConf.to_container(config, resolve=False))
    path = run_dir / "claim.json"
    if path.is_file():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        differing = sorted(
            key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)
        )
        if differing:
            what = ", ".join(differing[:3]) + (", …" if len(differing) > 3 else "")
            raise UsageError(
                f"{run_dir}: holds a run with other settings ({what}); choose another folder with "
                "seg.run_dir=… or delete it"
            )
    else:
        write_atomic(path, json.dumps(mine, indent=1, sort_keys=True))


def _comparable(values: Any) -> dict[str, Any]:
    plain = json.loads(json.dumps(leaves(values)))
    return {key: value for key, value in plain.items() if key not in _MAY_CHANGE}


@contextmanager
def exclusive(run_dir: Path) -> Generator[int]:
    """Hold the run folder. The trainer holds it as well, so that one whose launcher was killed has
    ended before the next one starts.

    Raises:
        UsageError: somebody else holds it.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / ".lock").open("w") as handle:
        give_up = time.monotonic() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise UsageError(
                        f"{run_dir}: another process is training here; wait for it, or choose "
                        "another seg.run_dir"
                    ) from None
                time.sleep(_POLL_S)
        yield handle.fileno()


def tidy(run_dir: Path) -> None:
    """Remove what an interrupted attempt left half done; keep its metrics under another name,
    because verl begins the file anew.
    """
    for name in (STOP_FILE, WORST_FILE):
        (run_dir / name).unlink(missing_ok=True)
    for path in (run_dir / TRAJECTORIES).glob("*.jsonl"):
        repair_jsonl(path)
    repair_tracker(run_dir / "checkpoints")
    metrics = run_dir / METRICS_FILE
    if metrics.is_file():
        earlier = len(list(run_dir.glob("metrics.*.jsonl")))
        metrics.rename(metrics.with_suffix(f".{earlier}.jsonl"))


def repair_tracker(folder: Path) -> None:
    """Name the last whole checkpoint where verl was killed while it wrote that number in place; it
    fails at an empty one.
    """
    tracker = folder / _TRACKER
    if not tracker.is_file() or tracker.read_text(encoding="utf-8").strip().isdigit():
        return
    # `data.pt` is the last file of a checkpoint and is closed before the number is written.
    whole = [
        int(path.parent.name.removeprefix("global_step_"))
        for path in folder.glob("global_step_*/data.pt")
    ]
    if whole:
        write_atomic(tracker, str(max(whole)))
    else:
        tracker.unlink()


def last_step(run_dir: Path) -> int:
    """Return the step of the last checkpoint that verl finished writing; 0 if there is none."""
    tracker = run_dir / "checkpoints" / _TRACKER
    return int(tracker.read_text(encoding="utf-8")) if tracker.is_file() else 0


def export_policy(
    run_dir: Path,
    weights: Path,
    base: Path | str,
    *,
    lora: bool,
    settings: EpisodeSettings,
    record: dict[str, Any],
) -> Path:
    """Leave a folder that can be loaded as it is: model, processor, the settings it was trained
    under, and a record of the training.

    Args:
        run_dir: the policy goes to its folder `policy`, all at once.
        weights: plain model folder of a checkpoint; with adapters verl's own files lie beside it.
        base: what the training started from; what the checkpoint lacks is taken from there.
        lora: adapters were trained; they are merged and verified.
        settings: of the episodes.
        record: read back by `policy_record`.

    Raises:
        InfraError: the adapters could not be merged.
    """
    staged, policy = run_dir / ".policy", run_dir / "policy"
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(weights, staged)
    for name in (
        "preprocessor_config.json",
        "video_preprocessor_config.json",
        "chat_template.jinja",
    ):
        source = Path(base) / name
        if source.is_file() and not (staged / name).exists():
            shutil.copy(source, staged / name)
    if lora:
        from seg_research.training.launch.lora_export import export_lora

        export_lora(weights.parent, base, staged)
    settings.save(staged)
    write_atomic(staged / _STEP_FILE, json.dumps(record) + "\n")
    shutil.rmtree(policy, ignore_errors=True)
    return staged.rename(policy)


def policy_record(run_dir: Path) -> dict[str, Any] | None:
    """Return what was noted with the exported policy; None if there is no policy yet."""
    path = run_dir / "policy" / _STEP_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

"""Do the whole job on the mini benchmark: data, search, GRPO on verl from the packaged cold start,
predictions, masks, scores, report.

Each stage is the command it prints; what is done already is not done again, so an interrupted demo
goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retrieval_server.server import running_server
from seg_common.arguments import at_least
from seg_common.errors import InfraError
from seg_common.files import append_jsonl, write_atomic
from seg_research.mini import COLD_START
from seg_research.mini.folder import MiniFolder

EXAMPLES = """examples:
  seg-research demo
  seg-research demo --out outputs/longer --steps 40 --train-questions 240
"""


# What the gradient improves is the policy that samples.
_AS_TRAINED = ["--temperature", "1.0"]
# As in examples/train/mini/experiments.yaml: so few episodes a step would blur the attention that
# reads and points (docs/mini.md).
_ADAPTERS = {
    "actor_rollout_ref.model.lora_rank": 8,
    "actor_rollout_ref.model.lora_alpha": 16,
    "actor_rollout_ref.model.target_modules": "[gate_proj,up_proj,down_proj]",
    "actor_rollout_ref.model.exclude_modules": ".*visual.*",
    "actor_rollout_ref.model.lora.merge": "true",
    "actor_rollout_ref.actor.checkpoint.save_contents": "[model,optimizer,extra]",
    "+actor_rollout_ref.actor.checkpoint.save_lora_only": "true",
    "actor_rollout_ref.actor.optim.lr": 3e-3,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/demo"),
        metavar="FOLDER",
        help="where everything goes",
    )
    parser.add_argument("--seed", type=int, default=0, help="of data, model and training")
    parser.add_argument("--steps", type=at_least(1), default=12, help="GRPO steps")
    parser.add_argument(
        "--train-questions", type=at_least(1), default=96, help="training questions"
    )
    parser.add_argument("--test-questions", type=at_least(1), default=48, help="test questions")
    parser.add_argument("--threads", type=at_least(1), default=2, help="CPU threads")


def run(options: argparse.Namespace) -> int:
    """Run all stages."""
    from seg_research.evaluation.summary import policy_row, start_and_end
    from seg_research.training.launch.learning_curve import learning_curve

    demo = _Demo(options)
    demo.prepare_data()
    demo.announce(
        "serve text and images (the search tool server, until the demo ends)", demo.serve_command
    )
    with running_server(demo.mini.text, demo.mini.images, cache=demo.out / "search_cache") as url:
        print(f"  search server at {url}", flush=True)
        demo.predict("expert", ["--scripted", "expert", "--settings", str(COLD_START)], url)
        demo.predict("before RL", ["--model", str(COLD_START), *_AS_TRAINED], url)
        demo.train(url)
        demo.predict("after RL", ["--model", str(demo.grpo / "policy"), *_AS_TRAINED], url)
    for name in demo.names:
        demo.segment_and_score(name)
    curve = learning_curve(demo.grpo)
    (demo.out / "curve.jsonl").unlink(missing_ok=True)
    for row in curve:
        append_jsonl(demo.out / "curve.jsonl", row)
    rows = [
        policy_row(name, demo.predictions(name), demo.folder(name) / "result.json")
        for name in demo.names
    ]
    write_atomic(demo.out / "summary.json", json.dumps(demo.summary(rows), indent=1))
    demo.step(
        "write the report", "report", "--run", str(demo.out), "--out", str(demo.out / "report.html")
    )
    _print_table(rows)
    start, end = start_and_end(curve)
    print(
        f"\nmean training reward, first and last 3 of {len(curve)} steps (seed {options.seed}):"
        f" {start:.3f} -> {end:.3f}"
    )
    print(f"took {time.monotonic() - demo.started:.0f} s; look at {demo.out / 'report.html'}")
    return 0


@dataclass
class _Demo:
    """Paths and stages of one demo."""

    options: argparse.Namespace
    names: list[str] = field(default_factory=list[str])
    started: float = field(default_factory=time.monotonic)

    @property
    def out(self) -> Path:
        return self.options.out

    @property
    def mini(self) -> MiniFolder:
        return MiniFolder(self.out / "mini")

    @property
    def grpo(self) -> Path:
        return self.out / "grpo"

    @property
    def serve_command(self) -> list[str]:
        return [
            "serve",
            "--text",
            str(self.mini.text),
            "--images",
            str(self.mini.images),
            "--cache",
            str(self.out / "search_cache"),
        ]

    def folder(self, name: str) -> Path:
        return self.out / "eval" / name.replace(" ", "_")

    def predictions(self, name: str) -> Path:
        return self.folder(name) / "predictions.jsonl"

    def announce(self, what: str, command: Sequence[str]) -> None:
        print(
            f"\n[{time.monotonic() - self.started:4.0f} s] {what}\n$ seg-research"
            f" {shlex.join(command)}",
            flush=True,
        )

    def step(self, what: str, *command: str) -> None:
        """Announce a command and run it here; its errors are this command's errors."""
        from seg_research.cli.main import run_command

        self.announce(what, command)
        code = run_command(list(command))
        if code:
            raise InfraError(
                f"this stage ended with exit code {code}; what was done is kept, run the same"
                " command again to go on"
            )

    def prepare_data(self) -> None:
        counts = [
            "--train",
            str(self.options.train_questions),
            "--val",
            "8",
            "--test",
            str(self.options.test_questions),
        ]
        self.step(
            "draw the mini benchmark",
            "data",
            "mini",
            "--out",
            str(self.mini.root),
            "--seed",
            str(self.options.seed),
            *counts,
        )
        for split in ("train", "val", "test"):
            if not self.mini.parquet(split).is_file():
                self.step(
                    f"prepare the {split} split", *self.mini.preparing(split, self.options.seed)
                )

    def predict(self, name: str, who: Sequence[str], url: str) -> None:
        self.names.append(name)
        command = [
            "predict",
            "--data",
            str(self.mini.parquet("test")),
            *who,
            "--search-url",
            url,
            "--out",
            str(self.predictions(name)),
        ]
        self.step(
            f"predict on the test questions: {name}",
            *command,
            "--threads",
            str(self.options.threads),
        )

    def train(self, url: str) -> None:
        o = self.options
        overrides = {
            "recipe": "seg_research",
            "model": "tiny",
            "hardware": "cpu",
            "search": "server",
            "seg.search.url": url,
            "seg.run_dir": self.grpo,
            "seg.seed": o.seed,
            "seg.threads": o.threads,
            "actor_rollout_ref.model.path": COLD_START,
            "data.train_files": self.mini.parquet("train"),
            "data.val_files": self.mini.parquet("val"),
            "data.train_batch_size": 8,
            # Three steps are one pass: the first and the last three judge the same questions, so
            # that their means can be compared.
            "data.train_max_samples": 24,
            "actor_rollout_ref.actor.ppo_mini_batch_size": 8,
            **_ADAPTERS,
            "actor_rollout_ref.rollout.n": 6,
            # The sampler's log-probabilities are the trainer's to 1e-5 here (tests/smoke);
            # computing them again takes a sixth of a step.
            "algorithm.rollout_correction.bypass_mode": "true",
            "trainer.total_training_steps": o.steps,
        }
        self.step(
            "train with GRPO on verl",
            "train",
            *(f"{key}={value}" for key, value in overrides.items()),
        )

    def segment_and_score(self, name: str) -> None:
        self.step(
            f"propagate masks: {name}",
            "segment",
            str(self.predictions(name)),
            "--backend",
            "grabcut",
        )
        truth = str(self.mini.truth("test"))
        self.step(
            f"score masks: {name}",
            "evaluate",
            str(self.predictions(name)),
            "--truth",
            truth,
            "--json",
            str(self.folder(name) / "result.json"),
        )

    def summary(self, rows: Sequence[object]) -> dict[str, object]:
        return {
            "title": "seg_research on the mini benchmark",
            "command": f"seg-research demo --seed {self.options.seed} --steps {self.options.steps}",
            "seed": self.options.seed,
            "rows": [row.to_json() for row in rows],  # type: ignore[attr-defined]
            "predictions": [
                {
                    "name": name,
                    "path": str(self.predictions(name).resolve()),
                    "masks": str((self.folder(name) / "seg").resolve()),
                }
                for name in self.names
            ],
            "truth": {
                "parquet": str(self.mini.parquet("test").resolve()),
                "meta": str((self.mini.truth("test")).resolve()),
            },
            "images": str(self.mini.images.resolve()),
            "notes": [
                (
                    "The expert is scripted and knows the truth: its J&F is the ceiling of the mask"
                    " back-end."
                ),
                (
                    "The policy is the packaged cold start: 2.3 million parameters that know this"
                    " benchmark and nothing else (docs/mini.md)."
                ),
                (
                    "Before and after RL it samples as in training; greedily it is better than that"
                    " (docs/mini.md)."
                ),
            ],
        }


def _print_table(rows: Sequence[object]) -> None:
    print(
        f"\n{'':<12}{'reward':>8}{'searches':>10}{'valid %':>9}"
        f"{'J':>7}{'F':>7}{'J&F':>7}{'missing':>9}"
    )
    for row in rows:
        values = row.to_json()  # type: ignore[attr-defined]
        print(
            f"{values['name']:<12}{values['reward']:>8.3f}{values['searches']:>10.2f}"
            f"{100 * values['valid']:>9.0f}"
            f"{values['J']:>7.1f}{values['F']:>7.1f}{values['JF']:>7.1f}{values['missing']:>9}"
        )

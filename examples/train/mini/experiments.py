"""Run the experiments of docs/results/mini.md: GRPO and DAPO from the cold start, with each reward,
over several seeds.

Each run trains, then judges every kept checkpoint (predict, GrabCut, J&F), greedily and as it
samples in training, on questions of another benchmark than the one that it trains on and that
settings are chosen on. What is done is not done again: killed at any moment, the same command goes
on. Then `results.py` makes the tables, figures and the page.

    python examples/train/mini/experiments.py --quick                        all experiments, three
    seeds, about 20 minutes a run python examples/train/mini/experiments.py --quick --only
    hierarchical outcome_only --seeds 0 python examples/train/mini/experiments.py
    the long version, at most 2 hours a run
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import yaml

from retrieval_server.server import running_server
from seg_common.errors import InfraError, UsageError
from seg_common.files import write_atomic
from seg_research.cli.main import run_command
from seg_research.mini.folder import MiniFolder
from seg_research.training.launch.lora_export import export_lora

ROOT = Path(__file__).parents[3]
PLAN = Path(__file__).with_name("experiments.yaml")
COLD_START = "cold_start"
SPLITS = ("train", "val", "test")
DECODINGS: dict[str, list[str]] = {"greedy": [], "sampled": ["--temperature", "1.0"]}
PACKAGES = ("torch", "transformers", "verl", "ray", "numpy", "opencv-python-headless")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--plan",
        type=Path,
        default=PLAN,
        metavar="YAML",
        help="what to run (default: experiments.yaml beside this file)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/mini_experiments"),
        metavar="FOLDER",
        help="where the raw logs go",
    )
    parser.add_argument("--quick", action="store_true", help="the quick version of the plan")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these experiments")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of a run (default 2)")
    options = parser.parse_args(argv)
    try:
        run(options)
    except (UsageError, InfraError) as error:
        print(f"experiments.py: {error}", file=sys.stderr)
        return 1
    return 0


def run(options: argparse.Namespace) -> None:
    """Prepare the data, judge the cold start, then train and judge every experiment with every
    seed.

    Raises:
        UsageError: the plan has no such experiment, or the folder holds other experiments.
    """
    plan: dict[str, Any] = yaml.safe_load(options.plan.read_text(encoding="utf-8"))
    unknown = sorted(set(options.only or ()) - plan["experiments"].keys())
    if unknown:
        raise UsageError(f"--only {unknown[0]}: the plan has {', '.join(plan['experiments'])}")
    bench = Bench(
        options.out, plan, plan["versions"]["quick" if options.quick else "full"], options.threads
    )
    if not (bench.model / "config.json").is_file():
        raise UsageError(
            f"{bench.model}: no model here; make the cold start first "
            "(examples/train/mini/coldstart.sh)"
        )
    bench.claim()
    bench.prepare_data()
    for seed in options.seeds:
        # The greedy answer is the same with every seed.
        greedy_is_known = any((bench.out / COLD_START).glob("*/greedy/result.json"))
        bench.judge(
            bench.model,
            bench.out / COLD_START / f"seed{seed}",
            seed,
            ("sampled",) if greedy_is_known else DECODINGS,
        )
    # Seed by seed: whoever stops early has every experiment with some seeds, not some experiments
    # with every seed.
    for seed in options.seeds:
        for name, overrides in plan["experiments"].items():
            if not options.only or name in options.only:
                bench.train(name, seed, [*plan["common"], *overrides])
                bench.judge_run(name, seed)
    print(f"done; the page: python examples/train/mini/results.py {bench.out}")


@dataclass(frozen=True)
class Bench:
    """Paths and stages that the experiments share."""

    out: Path
    plan: dict[str, Any]
    sizes: dict[str, int]
    threads: int

    @property
    def model(self) -> Path:
        return ROOT / self.plan["model"]

    @property
    def mini(self) -> MiniFolder:
        """The benchmark that policies train on."""
        return MiniFolder(self.out / "mini")

    @property
    def exam(self) -> MiniFolder:
        """The benchmark that they are judged on."""
        return MiniFolder(self.out / "exam")

    def claim(self) -> None:
        """Write the manifest; refuse a folder that holds runs of another setting, model or version.

        Raises:
            UsageError: the folder holds other experiments.
        """
        manifest = {
            "plan": self.plan,
            "sizes": self.sizes,
            "model_sha256": digest(self.model / "model.safetensors"),
        }
        path = self.out / "manifest.json"
        if path.is_file():
            held = json.loads(path.read_text(encoding="utf-8"))
            same = all(
                held.get("plan", {}).get(key) == self.plan[key]
                for key in ("data", "judging", "common")
            )
            if not same or any(held.get(key) != manifest[key] for key in ("sizes", "model_sha256")):
                raise UsageError(
                    f"{self.out}: holds experiments of another setting, version or cold start; "
                    "choose another --out or delete it"
                )
        self.out.mkdir(parents=True, exist_ok=True)
        versions = {
            "python": sys.version.split()[0],
            **{name: package_version(name) for name in PACKAGES},
        }
        write_atomic(path, json.dumps(manifest | {"versions": versions}, indent=1) + "\n")

    def prepare_data(self) -> None:
        """Draw both benchmarks and prepare their splits."""
        for folder, data in ((self.mini, self.plan["data"]), (self.exam, self.plan["judging"])):
            counts = [argument for split in SPLITS for argument in (f"--{split}", data[split])]
            command("data", "mini", "--out", folder.root, "--seed", data["seed"], *counts)
            for split in SPLITS:
                if data[split] and not folder.parquet(split).is_file():
                    command(*folder.preparing(split, data["seed"]))

    def server(self, folder: MiniFolder) -> AbstractContextManager[str]:
        """Start a search server for a benchmark; its URL is what the context yields."""
        return running_server(folder.text, folder.images, cache=self.out / "search_cache")

    def train(self, name: str, seed: int, overrides: Sequence[str]) -> None:
        """Train one experiment with one seed.

        Raises:
            UsageError: it was trained before, with other overrides.
        """
        folder = self.out / "runs" / name / f"seed{seed}"
        record = folder / "trained.json"
        if record.is_file():
            if json.loads(record.read_text(encoding="utf-8"))["overrides"] != list(overrides):
                raise UsageError(
                    f"{folder}: was trained with other overrides than the plan has now; delete "
                    "it to train it again"
                )
            return
        began = time.monotonic()
        own = {
            "seg.run_dir": folder / "train",
            "seg.seed": seed,
            "seg.threads": self.threads,
            "actor_rollout_ref.model.path": self.model,
            "data.train_files": self.mini.parquet("train"),
            "data.val_files": self.mini.parquet("val"),
            "trainer.total_training_steps": self.sizes["steps"],
            "trainer.save_freq": self.sizes["eval_every"],
            "trainer.max_actor_ckpt_to_keep": "null",
        }
        with self.server(self.mini) as url:
            command(
                "train",
                *overrides,
                *(f"{key}={value}" for key, value in own.items()),
                f"seg.search.url={url}",
            )
        write_atomic(
            record,
            json.dumps({"minutes": minutes_since(began), "overrides": list(overrides), **commit()})
            + "\n",
        )

    def judge_run(self, name: str, seed: int) -> None:
        """Judge each kept checkpoint of a trained run; but for the last, they are deleted then."""
        folder = self.out / "runs" / name / f"seed{seed}"
        finished = folder / "finished.json"
        if finished.is_file():
            return
        began, steps = time.monotonic(), self.sizes["steps"]
        for step in range(self.sizes["eval_every"], steps + 1, self.sizes["eval_every"]):
            checkpoint = folder / "train" / "checkpoints" / f"global_step_{step}"
            self.judge(checkpoint, folder / f"step{step}", seed, DECODINGS)
            if step < steps:
                shutil.rmtree(checkpoint, ignore_errors=True)
        write_atomic(finished, json.dumps({"minutes": minutes_since(began), **commit()}) + "\n")

    def judge(self, policy: Path, folder: Path, seed: int, decodings: Iterable[str]) -> None:
        """Predict, segment and score a model or a checkpoint. Every policy is scored with the
        rewards of the cold start.
        """
        missing = [
            decoding for decoding in decodings if not (folder / decoding / "result.json").is_file()
        ]
        if not missing:
            return
        model = policy if (policy / "config.json").is_file() else self.merged(policy)
        with self.server(self.exam) as url:
            for decoding in missing:
                predictions = folder / decoding / "predictions.jsonl"
                data = [
                    "--data",
                    self.exam.parquet("test"),
                    "--search-url",
                    url,
                    "--threads",
                    self.threads,
                    "--seed",
                    seed,
                ]
                command(
                    "predict",
                    *data,
                    "--model",
                    model,
                    "--settings",
                    self.model,
                    "--out",
                    predictions,
                    *DECODINGS[decoding],
                )
                command("segment", predictions, "--backend", "grabcut", "--workers", self.threads)
                result = folder / decoding / "result.json"
                command(
                    "evaluate",
                    predictions,
                    "--truth",
                    self.exam.truth("test"),
                    "--json",
                    result,
                    "--workers",
                    1,
                )
                shutil.rmtree(folder / decoding / "seg")

    def merged(self, checkpoint: Path) -> Path:
        """Return the folder of a checkpoint that can be loaded; adapters are merged into the cold
        start first.
        """
        actor, merged = checkpoint / "actor", checkpoint / "merged"
        if not (actor / "lora_train_meta.json").is_file():
            return actor / "huggingface"
        if not merged.is_dir():
            staged = checkpoint / ".merged"
            shutil.rmtree(staged, ignore_errors=True)
            shutil.copytree(self.model, staged)
            export_lora(actor, self.model, staged)
            staged.rename(merged)
        return merged


def minutes_since(began: float) -> float:
    """Return minutes of wall clock."""
    return round((time.monotonic() - began) / 60, 1)


def command(*arguments: object) -> None:
    """Show a command and run it here.

    Raises:
        InfraError: it failed.
    """
    words = [str(argument) for argument in arguments]
    print(f"$ seg-research {shlex.join(words)}", flush=True)
    code = run_command(words)
    if code:
        raise InfraError(
            f"seg-research {words[0]} ended with exit code {code}; what is done is kept, run "
            "the same command again to go on"
        )


def commit() -> dict[str, Any]:
    """Name the commit of this checkout, and whether files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    return {
        "commit": git("rev-parse", "HEAD"),
        "changed_files": git("status", "--porcelain", "--untracked-files=no").splitlines(),
    }


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())

"""Run the experiments of docs/results/mini.md: GRPO and DAPO from the cold start, with each reward, over several seeds.

Each run trains, then judges every kept checkpoint on the test questions (predict, GrabCut, J&F), greedily and as it samples in training.
What is done is not done again: killed at any moment, the same command goes on. Then `results.py` makes the tables, figures and the page.

    python examples/train/mini/experiments.py --quick                        all experiments, three seeds, at most 20 minutes a run
    python examples/train/mini/experiments.py --quick --only hierarchical outcome_only --seeds 0
    python examples/train/mini/experiments.py                                the long version, at most 2 hours a run
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
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from retrieval_server.server import running_server
from seg_research.cli.main import run_command
from seg_research.core.errors import InfraError, UsageError
from seg_research.core.files import write_atomic
from seg_research.datasets.mini.folder import MiniFolder
from seg_research.training.lora_export import export_lora

ROOT = Path(__file__).parents[3]
PLAN = Path(__file__).with_name("experiments.yaml")
COLD_START = "cold_start"
DECODINGS: dict[str, list[str]] = {"greedy": [], "sampled": ["--temperature", "1.0"]}
PACKAGES = ("torch", "transformers", "verl", "ray", "numpy", "opencv-python-headless")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, default=PLAN, metavar="YAML", help="what to run (default: experiments.yaml beside this file)")
    parser.add_argument("--out", type=Path, default=Path("outputs/mini_experiments"), metavar="FOLDER", help="where the raw logs go")
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
    """Prepare the data, judge the cold start, then train and judge every experiment with every seed.

    Raises:
        UsageError: the plan has no such experiment, or the folder holds other experiments.
    """
    plan: dict[str, Any] = yaml.safe_load(options.plan.read_text(encoding="utf-8"))
    unknown = sorted(set(options.only or ()) - plan["experiments"].keys())
    if unknown:
        raise UsageError(f"--only {unknown[0]}: the plan has {', '.join(plan['experiments'])}")
    bench = Bench(options.out, plan, plan["versions"]["quick" if options.quick else "full"], options.threads)
    if not (bench.model / "config.json").is_file():
        raise UsageError(f"{bench.model}: no model here; make the cold start first (examples/train/mini/coldstart.sh)")
    bench.claim()
    bench.prepare_data()
    with running_server(bench.mini.text, bench.mini.images, cache=bench.out / "search_cache") as url:
        for seed in options.seeds:
            bench.judge(bench.model, bench.out / COLD_START / f"seed{seed}", seed, url)
        # Seed by seed: whoever stops early has every experiment with some seeds, not some experiments with every seed.
        for seed in options.seeds:
            for name, overrides in plan["experiments"].items():
                if not options.only or name in options.only:
                    bench.run_experiment(name, seed, [*plan["common"], *overrides], url)
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
        return MiniFolder(self.out / "mini")

    def claim(self) -> None:
        """Write the manifest; refuse a folder that holds runs of another plan, model or version.

        Raises:
            UsageError: the folder holds other experiments.
        """
        identity = {"plan": self.plan, "sizes": self.sizes, "model_sha256": digest(self.model / "model.safetensors")}
        path = self.out / "manifest.json"
        if path.is_file():
            if json.loads(path.read_text(encoding="utf-8"))["identity"] != identity:
                raise UsageError(f"{self.out}: holds experiments of another plan, version or cold start; choose another --out or delete it")
            return
        self.out.mkdir(parents=True, exist_ok=True)
        versions = {"python": sys.version.split()[0], **{name: version(name) for name in PACKAGES}}
        write_atomic(path, json.dumps({"identity": identity, **commit(), "versions": versions}, indent=1) + "\n")

    def prepare_data(self) -> None:
        """Draw the benchmark and prepare its splits."""
        data = self.plan["data"]
        counts = [argument for split in ("train", "val", "test") for argument in (f"--{split}", str(data[split]))]
        command("data", "mini", "--out", self.mini.root, "--seed", data["seed"], *counts)
        for split in ("train", "val", "test"):
            if not self.mini.parquet(split).is_file():
                command(*self.mini.preparing(split, data["seed"]))

    def judge(self, policy: Path, folder: Path, seed: int, url: str) -> None:
        """Predict on the test questions in both ways, segment and score. Every policy is scored with the rewards of the cold start."""
        for decoding, options in DECODINGS.items():
            result = folder / decoding / "result.json"
            if result.is_file():
                continue
            predictions = folder / decoding / "predictions.jsonl"
            data = ["--data", self.mini.parquet("test"), "--search-url", url, "--threads", self.threads]
            command("predict", *data, "--model", policy, "--settings", self.model, "--out", predictions, *options, "--seed", seed)
            command("segment", predictions, "--backend", "grabcut")
            command("evaluate", predictions, "--truth", self.mini.truth("test"), "--json", result, "--workers", 1)
            shutil.rmtree(folder / decoding / "seg")

    def merged(self, checkpoint: Path) -> Path:
        """Return the folder of a checkpoint that can be loaded; adapters are merged into the cold start first."""
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

    def run_experiment(self, name: str, seed: int, overrides: Sequence[str], url: str) -> None:
        """Train one experiment with one seed and judge each checkpoint."""
        folder = self.out / "runs" / name / f"seed{seed}"
        finished = folder / "finished.json"
        if finished.is_file():
            return
        began, train, steps = time.monotonic(), folder / "train", self.sizes["steps"]
        own = {
            "seg.search.url": url,
            "seg.run_dir": train,
            "seg.seed": seed,
            "seg.threads": self.threads,
            "actor_rollout_ref.model.path": self.model,
            "data.train_files": self.mini.parquet("train"),
            "data.val_files": self.mini.parquet("val"),
            "trainer.total_training_steps": steps,
            "trainer.save_freq": self.sizes["eval_every"],
            "trainer.max_actor_ckpt_to_keep": "null",
        }
        command("train", *overrides, *(f"{key}={value}" for key, value in own.items()))
        for step in range(self.sizes["eval_every"], steps + 1, self.sizes["eval_every"]):
            checkpoint = train / "checkpoints" / f"global_step_{step}"
            self.judge(self.merged(checkpoint), folder / f"step{step}", seed, url)
            if step < steps:
                shutil.rmtree(checkpoint, ignore_errors=True)
        write_atomic(finished, json.dumps({"minutes": round((time.monotonic() - began) / 60, 1), "overrides": list(overrides)}) + "\n")


def command(*arguments: object) -> None:
    """Show a command and run it here.

    Raises:
        InfraError: it failed.
    """
    words = [str(argument) for argument in arguments]
    print(f"$ seg-research {shlex.join(words)}", flush=True)
    code = run_command(words)
    if code:
        raise InfraError(f"seg-research {words[0]} ended with exit code {code}; what is done is kept, run the same command again to go on")


def commit() -> dict[str, Any]:
    """Name the commit of this checkout, and whether files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout.strip()

    return {"commit": git("rev-parse", "HEAD"), "changed_files": git("status", "--porcelain", "--untracked-files=no").splitlines()}


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())

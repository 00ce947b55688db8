"""Check a cold-started model on the test questions of a mini benchmark: what it must be able to do
before reinforcement learning.

All but one check run real episodes (search server, episodes, GrabCut, J&F), once with the passages
of the test entities and once with these passages withheld. Two scripted policies give a scale: one
boxes any figure on the best frame, one knows the true box but always answers on the same frame.
Only "reads" is checked on text alone. Finished parts are not run again.

    cd outputs/mini_coldstart
    python …/examples/train/mini/acceptance_checks.py --model policy --data mini --out checks
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seg_common.errors import InfraError, UsageError
from seg_common.files import read_jsonl, write_atomic
from seg_research.cli.main import run_command
from seg_research.data.rows import read_samples
from seg_research.data.sample import Sample, TargetOnFrame
from seg_research.data.splits import Split
from seg_research.mini.folder import MiniFolder
from seg_research.mini.names import split_of
from seg_research.mini.writer import read_manifest
from seg_research.policies.scripted import ScriptedPolicy
from seg_research.recipes.registry import build_recipe, load_settings
from seg_research.recipes.seg_research.turns import answer_turn, keyframe_turn

RESULT_NAME = "acceptance_checks.json"
_NUM_TEXTS, _MOST_TOKENS = 60, 400


@dataclass(frozen=True)
class AcceptanceCheck:
    """What was measured, and the least that is wanted."""

    name: str
    value: float
    wanted: float

    @property
    def row(self) -> str:
        """One line of the table."""
        return (
            f"{self.name:<58}{self.value:>8.3f}{self.wanted:>9.2f}   "
            f"{'ok' if self.value >= self.wanted else 'MISSED'}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Check, print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="mini benchmark with a prepared test split",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    try:
        checks = AcceptanceRun(
            options.model, MiniFolder(options.data), options.out, options.threads
        ).run()
    except (UsageError, InfraError) as error:
        print(f"acceptance_checks.py: {error}", file=sys.stderr)
        return 1
    return 0 if all(check.value >= check.wanted for check in checks) else 3


@dataclass(frozen=True)
class AcceptanceRun:
    """Paths and stages."""

    model: Path
    data: MiniFolder
    out: Path
    threads: int

    def run(self) -> list[AcceptanceCheck]:
        """Run all stages."""
        samples = read_samples(self.data.parquet("test"))
        scores = {
            "with passages": self._play_model("with_passages", self.data.text),
            "passages withheld": self._play_model("passages_withheld", self._withheld()),
            "any figure, best frame": self._play_script(
                "any_figure", samples, self._any_figure(samples)
            ),
            "true box, but always the same frame": self._play_script(
                "same_frame", samples, _same_frame(samples)
            ),
        }
        answers = {str(row["id"]): str(row["target"]) for row in read_jsonl(self.data.answers)}
        lines = list(read_jsonl(self.out / "with_passages" / "predictions.jsonl"))
        gain = scores["with passages"] - scores["passages withheld"]
        checks = [
            AcceptanceCheck("reads: look named, text alone", reading_score(self.model), 0.95),
            AcceptanceCheck("valid episodes", _mean(_is_valid(line) for line in lines), 0.9),
            AcceptanceCheck(
                "exact name in the first search (questions that need one)",
                _mean(_copies(line) for line in lines if _steps(line)),
                0.9,
            ),
            AcceptanceCheck(
                "right target named",
                _mean(_names(line, answers[line["id"]]) for line in lines),
                0.7,
            ),
            AcceptanceCheck("J&F, GrabCut", scores["with passages"], 35),
            AcceptanceCheck("J&F above passages withheld", gain, 20),
        ]
        print(f"\n{'on ' + str(len(lines)) + ' test questions':<58}{'reached':>8}{'wanted':>9}")
        for check in checks:
            print(check.row)
        print("\nJ&F")
        for name, score in scores.items():
            print(f"  {name:<56}{score:>8.1f}")
        by_ability = self._by_ability(lines, answers)
        report = {
            "questions": len(lines),
            "checks": [vars(check) for check in checks],
            "J&F": scores,
            "abilities": by_ability,
        }
        write_atomic(self.out / RESULT_NAME, json.dumps(report, indent=1) + "\n")
        return checks

    def _by_ability(
        self, lines: Sequence[Mapping[str, Any]], answers: Mapping[str, str]
    ) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for ability in sorted({line["ability"] for line in lines}):
            own = [line for line in lines if line["ability"] == ability]
            result[ability] = {
                "named": _mean(_names(line, answers[line["id"]]) for line in own),
                "searches": sum(line["num_search"] for line in own) / len(own),
            }
            print(
                f"  {ability:<30} named {result[ability]['named']:.2f}   searches "
                f"{result[ability]['searches']:.2f}"
            )
        return result

    def _play_model(self, name: str, corpus: Path) -> float:
        predictions = self.out / name / "predictions.jsonl"
        arguments = [
            "--text",
            corpus,
            "--images",
            self.data.images,
            "--out",
            predictions,
            "--threads",
            self.threads,
        ]
        _command("predict", "--data", self.data.parquet("test"), "--model", self.model, *arguments)
        return self._judge(predictions)

    def _play_script(
        self, name: str, samples: Sequence[Sample], script: Callable[[Sample, int], Sequence[str]]
    ) -> float:
        from seg_research.evaluation.predict import PredictionRun, predict

        settings = load_settings(self.model)
        recipe = build_recipe(settings)

        class NoSearch:
            async def search(self, query: str, kind: str, top_k: int) -> Any:
                raise AssertionError("these scripts do not search")

        tools = recipe.connect(NoSearch())
        run = PredictionRun(recipe, tools, lambda group: ScriptedPolicy(script), {"policy": name})
        predictions = self.out / name / "predictions.jsonl"
        predictions.parent.mkdir(parents=True, exist_ok=True)
        asyncio.run(predict(run, samples, predictions, lambda done: None))
        return self._judge(predictions)

    def _judge(self, predictions: Path) -> float:
        result = predictions.with_name("result.json")
        if not result.is_file():
            _command("segment", predictions, "--backend", "grabcut")
            _command(
                "evaluate",
                predictions,
                "--truth",
                self.data.truth("test"),
                "--json",
                result,
                "--workers",
                self.threads,
            )
        return float(json.loads(result.read_text(encoding="utf-8"))["overall"]["JF"])

    def _withheld(self) -> Path:
        """Write the corpus without the passages about names of the test split."""
        kept = [
            row
            for row in read_jsonl(self.data.text)
            if split_of(str(row["contents"]).partition("\n")[0]) is not Split.TEST
        ]
        path = self.out / "corpus_withheld.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, "".join(json.dumps(row) + "\n" for row in kept))
        return path

    def _any_figure(self, samples: Sequence[Sample]) -> Callable[[Sample, int], Sequence[str]]:
        """Take the frame that shows the target best, and box any figure that is in it."""
        manifest = read_manifest(self.data.root)
        if manifest is None:
            raise UsageError(
                f"{self.data.root}: not a mini benchmark of this version; make it again with: "
                "seg-research data mini"
            )

        def script(sample: Sample, rollout: int) -> list[str]:
            assert sample.truth is not None
            target = sample.truth.single()
            assert target is not None
            frame_id = max(target.frames, key=lambda f: target.frames[f].max_conn_area)
            return _turns(frame_id, _figure(manifest.seed, sample, int(frame_id)))

        return script


def _figure(seed: int, sample: Sample, frame_id: int) -> TargetOnFrame:
    from seg_research.core.geometry import Norm1000Box, Norm1000Point
    from seg_research.core.video import FrameId, FramePosition
    from seg_research.mini.pretraining_data.scenes import find_visible
    from seg_research.mini.world import draw_world

    split, _, index = sample.video_path.name.partition("_")
    world = draw_world(seed, Split(split), int(index))
    rendering = world.render(FramePosition(world.frame_ids.index(FrameId(frame_id))))
    found = [
        place
        for n, actor in enumerate(world.cast)
        if (place := find_visible(rendering.labels_HW == n + 1, actor.look)) is not None
    ]
    place = random.Random(sample.sample_id).choice(found)
    return TargetOnFrame(
        Norm1000Box(*(min(1000.0, v) for v in place.box)), Norm1000Point(*place.point), 1.0, 1.0
    )


def _same_frame(samples: Sequence[Sample]) -> Callable[[Sample, int], Sequence[str]]:
    """Know the target, but always take the same of the offered frames: the one that shows most
    targets.
    """

    def shown(sample: Sample, position: int) -> TargetOnFrame | None:
        target = sample.truth and sample.truth.single()
        return target.frames.get(sample.offered[position].frame_id) if target else None

    count = min(len(sample.offered) for sample in samples)
    best = max(
        range(count),
        key=lambda position: sum(shown(sample, position) is not None for sample in samples),
    )

    def script(sample: Sample, rollout: int) -> list[str]:
        truth = shown(sample, best)
        return (
            ["<keyframe> -1 </keyframe>"]
            if truth is None
            else _turns(sample.offered[best].frame_id, truth)
        )

    return script


def _turns(frame_id: Any, place: TargetOnFrame) -> list[str]:
    return [keyframe_turn(frame_id, "this one"), answer_turn(place, "there")]


def reading_score(model: Path) -> float:
    """Look names up among passages about held-out entities, on text alone: share of looks whose
    words all have the highest logit.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    from seg_research.mini.curriculum import ExampleEncoder
    from seg_research.mini.pretraining_data.passage_qa import exam_question
    from seg_research.mini.pretraining_data.training_example import SplitRandom
    from seg_research.mini.qwen3vl_cpu_forward import CpuForward
    from seg_research.policies.processor import load_processor

    tokenizer = load_processor(model).tokenizer
    network = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32)
    draw = SplitRandom(0)
    draw.split = Split.TEST
    encoder, fast = ExampleEncoder(tokenizer), CpuForward(network, compiled=False)
    right: list[bool] = []
    for _ in range(_NUM_TEXTS):
        with torch.no_grad():
            _, hits = fast.loss(encoder.batch([exam_question(draw)], _MOST_TOKENS))
        right.append(bool(hits.all()))
    return _mean(right)


def _command(*arguments: object) -> None:
    words = [str(argument) for argument in arguments]
    code = run_command(words)
    if code:
        raise InfraError(
            f"seg-research {words[0]} ended with exit code {code}; what is done is kept, run "
            "the same command again to go on"
        )


def _mean(values: Any) -> float:
    listed = [float(value) for value in values]
    return sum(listed) / max(1, len(listed))


def _said(line: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [turn for turn in line["turns"] if turn["role"] == "assistant"]


def _is_valid(line: Mapping[str, Any]) -> bool:
    kinds = [(turn["action"] or {"kind": "fault"})["kind"] for turn in _said(line)]
    return line["stop_reason"] == "answered" and "fault" not in kinds


def _steps(line: Mapping[str, Any]) -> bool:
    return line["ability"] != "in-video"


def _copies(line: Mapping[str, Any]) -> bool:
    name = next(
        word
        for word in line["query"].removeprefix("Please").replace("'", " ").split()
        if word[0].isupper()
    )
    searches = [
        turn["action"] for turn in _said(line) if (turn["action"] or {}).get("kind") == "search"
    ]
    return bool(searches) and name in str(searches[0]["query"]).split()


def _names(line: Mapping[str, Any], look: str) -> bool:
    """Tell whether the thought of the answer names the look of the target."""
    last = _said(line)[-1]
    return (last["action"] or {}).get("kind") == "answer" and look in str(last["text"]).partition(
        "</thinking>"
    )[0]


if __name__ == "__main__":
    sys.exit(main())

"""J and F side by side with the formula as DAVIS writes it, and `seg-research evaluate` over whole
folders.

The plain formula draws outlines with shifted copies and dilates them with a disk (`cv2.dilate`),
frame by frame; it is written out here from the definition, without the void masks that the original
makes for every frame, so it is quicker than the original's code. Both sides are measured by the CPU
seconds of one thread, which a busy machine hardly changes; the whole command by the clock as well.

    python benchmarks/metrics.py              about two minutes on two cores
    python benchmarks/metrics.py --frames 20  a quick look
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from seg_research.core.masks import read_mask, write_mask
from seg_research.metrics import boundary_f, jaccard

SIZE_HW = (480, 854)
ORIGINAL_MS = 1.35 + 4.15
"""J and F of a frame by the original's code, one core of this kind of machine, as measured when the
task was set.
"""
ORIGINAL_EVALUATE_S = 15.0
NUM_ROUNDS = 3

Masks = NDArray[np.bool_]


def plain_j(truth_HW: Masks, prediction_HW: Masks) -> float:
    """J as the formula says."""
    either = np.sum(truth_HW | prediction_HW)
    return float(np.sum(truth_HW & prediction_HW) / either) if either else 1.0


def plain_f(truth_HW: Masks, prediction_HW: Masks) -> float:
    """F as the formula says: outlines dilated by a disk."""
    radius = ceil(0.008 * np.linalg.norm(truth_HW.shape))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.uint8)
    truth_edge, prediction_edge = plain_outline(truth_HW), plain_outline(prediction_HW)
    num_truth, num_prediction = truth_edge.sum(), prediction_edge.sum()
    if num_truth == 0 or num_prediction == 0:
        return float(num_truth == num_prediction)
    near_truth, near_prediction = (
        cv2.dilate(edge.astype(np.uint8), disk) for edge in (truth_edge, prediction_edge)
    )
    precision = np.sum(prediction_edge * near_truth) / num_prediction
    recall = np.sum(truth_edge * near_prediction) / num_truth
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def plain_outline(mask_HW: Masks) -> Masks:
    """Mark pixels that differ from their right, lower or lower-right neighbour."""
    right, below, diagonal = (np.zeros_like(mask_HW) for _ in range(3))
    right[:, :-1], below[:-1], diagonal[:-1, :-1] = mask_HW[:, 1:], mask_HW[1:], mask_HW[1:, 1:]
    edge = (mask_HW ^ right) | (mask_HW ^ below) | (mask_HW ^ diagonal)
    edge[-1], edge[:, -1] = mask_HW[-1] ^ right[-1], mask_HW[:, -1] ^ below[:, -1]
    edge[-1, -1] = False
    return edge


def disks(rng: np.random.Generator, num_frames: int, radius_px: int) -> tuple[Masks, Masks]:
    """An object that moves, and a prediction of it some pixels off."""
    y, x = np.ogrid[: SIZE_HW[0], : SIZE_HW[1]]
    centres = np.array([[240, 427]]) + np.cumsum(rng.integers(-3, 4, (num_frames, 2)), axis=0)
    offsets = rng.integers(-5, 6, (num_frames, 2))
    truth = np.stack([(y - cy) ** 2 + (x - cx) ** 2 <= radius_px**2 for cy, cx in centres])
    return truth, np.stack(
        [((y - cy) ** 2) * 1.1 + (x - cx) ** 2 <= radius_px**2 for cy, cx in centres + offsets]
    )


def fields(
    rng: np.random.Generator, num_frames: int, smoothness_px: float, share: float
) -> tuple[Masks, Masks]:
    """Random fields cut at a level: the smaller the smoothness, the longer the outlines."""

    def draw() -> Masks:
        field = (
            ndimage.gaussian_filter(rng.random(SIZE_HW, np.float32), smoothness_px)
            if smoothness_px
            else rng.random(SIZE_HW)
        )
        return field > np.quantile(field, 1 - share)

    return np.stack([draw() for _ in range(num_frames)]), np.stack(
        [draw() for _ in range(num_frames)]
    )


CASES: dict[str, Callable[[np.random.Generator, int], tuple[Masks, Masks]]] = {
    "object of 80 px": lambda rng, n: disks(rng, n, 40),
    "object of 240 px": lambda rng, n: disks(rng, n, 120),
    "object of 440 px": lambda rng, n: disks(rng, n, 220),
    "blobs over the frame": lambda rng, n: fields(rng, n, 20, 0.4),
    "hard: texture of 2 px over the frame": lambda rng, n: fields(rng, n, 2, 0.5),
    "hard: noise": lambda rng, n: fields(rng, n, 0, 0.5),
    "hard: nearly full, grainy": lambda rng, n: fields(rng, n, 0, 0.97),
}


def cpu_ms_a_frame(function: Callable[[], object], num_frames: int) -> float:
    """Return the CPU milliseconds of the best of a few rounds."""
    seconds: list[float] = []
    for _ in range(NUM_ROUNDS):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return 1000 * min(seconds) / num_frames


def compare_formulas(num_frames: int) -> None:
    """Print J + F a frame for every kind of mask."""
    print(f"J + F, {num_frames} frames of {SIZE_HW[1]}x{SIZE_HW[0]}, CPU ms a frame on one core\n")
    print(
        "| masks | plain J | plain F | ours J | ours F | plain / ours | original / ours | "
        "largest difference |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    ratios: list[float] = []
    for name, make in CASES.items():
        truth, prediction = make(np.random.default_rng(0), num_frames)
        pairs = list(zip(truth, prediction, strict=True))
        expected = np.array([(plain_j(*pair), plain_f(*pair)) for pair in pairs])
        difference = abs(
            np.stack([jaccard(truth, prediction), boundary_f(truth, prediction)], axis=1) - expected
        ).max()
        plain_j_ms = cpu_ms_a_frame(
            lambda: [plain_j(*pair) for pair in pairs],  # noqa: B023
            num_frames,
        )
        plain_f_ms = cpu_ms_a_frame(
            lambda: [plain_f(*pair) for pair in pairs],  # noqa: B023
            num_frames,
        )
        j_ms = cpu_ms_a_frame(lambda: jaccard(truth, prediction), num_frames)  # noqa: B023
        f_ms = cpu_ms_a_frame(lambda: boundary_f(truth, prediction), num_frames)  # noqa: B023
        ratios.append((plain_j_ms + plain_f_ms) / (j_ms + f_ms))
        row = [f"{ms:.2f}" for ms in (plain_j_ms, plain_f_ms, j_ms, f_ms)]
        print(
            f"| {name} | {' | '.join(row)} | {ratios[-1]:.1f} | "
            f"{ORIGINAL_MS / (j_ms + f_ms):.1f} | {difference:.0e} |"
        )
    print(
        f"\nworst plain / ours: {min(ratios):.1f} (asked for: 4); original: {ORIGINAL_MS} ms a "
        "frame on such a core\n"
    )


def write_folders(root: Path, num_videos: int, num_frames: int) -> Path:
    """Write ground truth and masks; return the meta mapping."""
    mapping: list[list[str]] = []
    for number in range(num_videos):
        radius_px = (40, 120, 220)[number % 3]
        for frame, masks in enumerate(
            zip(*disks(np.random.default_rng(number), num_frames, radius_px), strict=True)
        ):
            write_mask(root / f"truth/{number}/{frame:05d}.png", masks[0])
            write_mask(root / f"seg/{number}/{frame:05d}.png", masks[1])
        mapping.append(
            [
                str(number),
                str(root / f"truth/{number}"),
                ("one-hop", "multi-hop", "relational")[number % 3],
            ]
        )
    path = root / "mapping.json"
    path.write_text(json.dumps(mapping))
    return path


def plain_evaluate(mapping: Path) -> tuple[float, float]:
    """Score folders with the plain formula, one file after the other; return mean J and F in per
    cent.
    """
    samples: list[list[float]] = []
    for name, folder, _ in json.loads(mapping.read_text()):
        scores: list[tuple[float, float]] = []
        for path in sorted(Path(folder).iterdir()):
            truth, prediction = (
                read_mask(path),
                read_mask(mapping.parent / "seg" / name / path.name),
            )
            scores.append((plain_j(truth, prediction), plain_f(truth, prediction)))
        samples.append(np.mean(scores, axis=0).tolist())
    j, f = 100 * np.mean(samples, axis=0)
    return float(j), float(f)


MEASURED = """
import json, re, resource, sys
from seg_research.cli.main import main
assert main(sys.argv[1:]) == 0
# The peak that the kernel keeps for this program image; ru_maxrss would start at the peak of the
# benchmark that started it.
own_kib = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
own, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
cpu_s = own.ru_utime + own.ru_stime + workers.ru_utime + workers.ru_stime
costs = [cpu_s, own_kib / 1024, workers.ru_maxrss / 1024]
open(sys.argv[-1] + ".cost", "w").write(json.dumps(costs))
"""


class Cost(NamedTuple):
    """What a run of the command took.

    Attributes:
        clock_s: from start to end.
        cpu_s: of all its processes.
        own_mib: peak memory of the command.
        worker_mib: peak memory of its largest worker.
    """

    clock_s: float
    cpu_s: float
    own_mib: float
    worker_mib: float


def run_evaluate(mapping: Path, num_workers: int) -> tuple[Cost, dict[str, float]]:
    """Run the command; return its cost and the overall scores."""
    result = mapping.with_name("result.json")
    command = [
        "evaluate",
        str(mapping.parent / "seg"),
        "--truth",
        str(mapping),
        "--workers",
        str(num_workers),
        "--json",
        str(result),
    ]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", MEASURED, *command], check=True, capture_output=True)
    seconds = time.perf_counter() - start
    return Cost(seconds, *json.loads(Path(f"{result}.cost").read_text())), json.loads(
        result.read_text()
    )["overall"]


def compare_evaluators(num_frames: int) -> None:
    """Print the time for twelve videos, with plain formula and with ours."""
    with tempfile.TemporaryDirectory() as folder:
        mapping = write_folders(Path(folder), 12, num_frames)
        start, cpu_start = time.perf_counter(), time.process_time()
        expected = plain_evaluate(mapping)
        rows = [
            (
                "plain formula, files one by one, 1 core",
                time.perf_counter() - start,
                time.process_time() - cpu_start,
            )
        ]
        for num_workers in (1, 2):
            runs = [run_evaluate(mapping, num_workers) for _ in range(NUM_ROUNDS)]
            overall = runs[0][1]
            assert abs(overall["J"] - expected[0]) < 1e-9
            assert abs(overall["F"] - expected[1]) < 1e-9
            rows.append(
                (
                    f"seg-research evaluate --workers {num_workers}",
                    *min(cost[:2] for cost, _ in runs),
                )
            )
    print(
        f"`evaluate` over {12 * num_frames} frames (original, 1,200 frames on 2 cores: "
        f"{ORIGINAL_EVALUATE_S:.0f} s), same scores\n"
    )
    print("| | seconds, start to end | CPU seconds |\n|---|---:|---:|")
    for name, seconds, cpu_s in rows:
        print(f"| {name} | {seconds:.1f} | {cpu_s:.1f} |")
    print(f"\nload of the machine meanwhile: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")


def measure_memory() -> None:
    """Print peak memory over many videos and over one long one."""
    print("Memory: peak MiB of `evaluate --workers 2`\n")
    print("| | the command | its largest worker |\n|---|---:|---:|")
    for num_videos, num_frames in ((20, 10), (200, 10), (2000, 10), (1, 20_000)):
        with tempfile.TemporaryDirectory() as folder:
            cost, _ = run_evaluate(link_folders(Path(folder), num_videos, num_frames), 2)
        print(
            f"| {num_videos} videos of {num_frames} frames | {cost.own_mib:.0f} | "
            f"{cost.worker_mib:.0f} |"
        )


def link_folders(root: Path, num_videos: int, num_frames: int) -> Path:
    """Make many videos out of one frame, by hard links."""
    y, x = np.ogrid[:240, :426]
    write_mask(root / "frame.png", (y - 120) ** 2 + (x - 200) ** 2 < 50**2)
    mapping: list[list[str]] = []
    for number in range(num_videos):
        for kind in ("truth", "seg"):
            (root / f"{kind}/{number}").mkdir(parents=True)
            for frame in range(num_frames):
                os.link(root / "frame.png", root / f"{kind}/{number}/{frame:05d}.png")
        mapping.append([str(number), str(root / f"truth/{number}"), "one-hop"])
    path = root / "mapping.json"
    path.write_text(json.dumps(mapping))
    return path


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--frames", type=int, default=100, metavar="N", help="frames a video (default 100)"
    )
    num_frames = parser.parse_args().frames
    cv2.setNumThreads(1)
    compare_formulas(num_frames)
    compare_evaluators(num_frames)
    measure_memory()


if __name__ == "__main__":
    main()

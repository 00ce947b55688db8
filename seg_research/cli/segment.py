"""Turn predictions into masks of every frame of their videos.

Masks go to <folder of PREDICTIONS>/seg/<id>/<frame>.png, 0 background and 255 target, in the
video's size. Several objects of one answer are merged. A prediction without an answer gets empty
masks. All questions about a video go through the model together. Finished predictions are skipped
when the command is run again. The exit code is 1 if any prediction failed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from post_segmentation.pipeline import FanOut, Outcome, SegmentSettings
    from post_segmentation.propagator import Engine

EXAMPLES = """examples:
  seg-research segment outputs/eval/predictions.jsonl
  seg-research segment outputs/eval/predictions.jsonl --weights facebook/sam2.1-hiera-large --vis
  seg-research segment outputs/eval/predictions.jsonl --backend grabcut --workers 8
  seg-research segment outputs/eval/predictions.jsonl --backend sam2+xmem --xmem-weights XMem.pth
  seg-research segment outputs/eval/predictions.jsonl --ray auto
"""

MAX_LISTED = 20
BACKENDS = {
    "sam2": "SAM 2, 2.1, EdgeTAM or the tracker of SAM 3, by transformers",
    "sam2-native": "SAM 2 by Meta's package",
    "sam2+xmem": "SAM 2 on the key frame, XMem from there on",
    "sec": "SeC",
    "grabcut": "GrabCut on the key frame, optical flow from there on; no weights",
    "box": "the box, filled, on every frame",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    backends = "; ".join(f"{name}: {what}" for name, what in BACKENDS.items())
    parser.add_argument(
        "predictions",
        type=Path,
        metavar="PREDICTIONS",
        help="predictions.jsonl of this program or of the original",
    )
    masks = parser.add_argument_group("who makes the masks")
    masks.add_argument(
        "--backend",
        choices=("auto", *BACKENDS),
        default="auto",
        help=f"{backends} (default: sam2 if --weights are given or facebook/sam2.1-hiera-large is on this machine, else grabcut)",
    )
    masks.add_argument(
        "--weights",
        metavar="WHERE",
        help="folder or hub id of a transformers model; .pt file for sam2-native",
    )
    masks.add_argument("--xmem-weights", metavar="FILE", help="XMem.pth, for sam2+xmem")
    masks.add_argument(
        "--device",
        default="auto",
        help="auto, cpu, cuda or cuda:N (default: auto, a GPU if there is one)",
    )
    masks.add_argument(
        "--window",
        type=int,
        default=32,
        metavar="N",
        help="frames whose features wait in main memory (default: 32)",
    )
    written = parser.add_argument_group("what is written")
    written.add_argument(
        "--out", type=Path, help="folder of the masks (default: seg beside PREDICTIONS)"
    )
    written.add_argument(
        "--format",
        choices=("png", "rle"),
        default="png",
        help="PNG files, or COCO run lengths in <id>/masks.jsonl",
    )
    written.add_argument(
        "--vis",
        action="store_true",
        help="also write one MP4 a prediction with masks, boxes and points drawn",
    )
    written.add_argument(
        "--sample-idx",
        type=int,
        default=0,
        metavar="N",
        help="which rollout of each question (default: 0)",
    )
    written.add_argument(
        "--overwrite", action="store_true", help="make masks anew that are already there"
    )
    where = parser.add_argument_group("where the work is done")
    where.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes (default: one a core; with a network, one a GPU, or one where there is none)",
    )
    where.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="spread over a Ray cluster: auto, HOST:PORT, or a new one here if empty",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; 1 if a prediction failed."""
    from tqdm import tqdm

    from post_segmentation.mask_writer import MaskFormat
    from post_segmentation.pipeline import SegmentSettings, Status, read_rollout, segment

    predictions, refused = read_rollout(options.predictions, options.sample_idx)
    suffix = "" if options.sample_idx == 0 else f"_{options.sample_idx}"
    out: Path = options.out or options.predictions.parent / f"seg{suffix}"
    vis = out.with_name(f"{out.name}_vis" if options.out else f"vis{suffix}")
    engine = _choose_engine(options)
    num_gpus = _count_gpus(engine)
    settings = SegmentSettings(
        out.absolute(),
        engine,
        vis.absolute() if options.vis else None,
        MaskFormat(options.format),
        max(1, options.workers or (num_gpus if engine.is_network else os.cpu_count()) or 1),
        num_gpus,
        options.overwrite,
    )
    with tqdm(
        total=len(predictions),
        unit="prediction",
        desc=f"segment with {engine.backend}",
        file=sys.stderr,
        delay=0.5,
    ) as bar:

        def advance(outcome: Outcome) -> None:
            bar.set_postfix_str(outcome.sample_id[-40:], refresh=False)
            bar.update()

        outcomes = [
            *refused,
            *segment(predictions, settings, advance, _over_ray(options, settings)),
        ]
    counts = Counter(outcome.status for outcome in outcomes)
    print(
        f"masks of {len(outcomes) - counts[Status.FAILED]} of {len(outcomes)} predictions in {out}, by {engine.backend} "
        f"(new: {counts[Status.MASKED] + counts[Status.EMPTY]}, already there: {counts[Status.KEPT]})"
    )
    if counts[Status.EMPTY]:
        print(f"without a usable answer, given empty masks: {counts[Status.EMPTY]}")
    if options.vis:
        print(f"videos in {vis}")
    failed = [outcome for outcome in outcomes if outcome.status is Status.FAILED]
    _report_failures([(outcome.sample_id, outcome.reason) for outcome in failed])
    return 1 if failed else 0


def _choose_engine(options: argparse.Namespace) -> Engine:
    from post_segmentation.propagator import Backend, Engine
    from post_segmentation.weights import DEFAULT_SAM2, is_cached

    name = options.backend
    if name == "auto":
        name = "sam2" if options.weights or is_cached(DEFAULT_SAM2) else "grabcut"
        if name == "grabcut":
            print(
                f"note: {DEFAULT_SAM2} is not on this machine, so the masks are grabcut's, which are rougher;"
                " --backend sam2 downloads it, --weights names a folder",
                file=sys.stderr,
            )
    return Engine(
        Backend(name), options.weights, options.xmem_weights, options.device, max(0, options.window)
    )


def _count_gpus(engine: Engine) -> int:
    """Return the number of GPUs to share among processes; 0 where the engine needs none or is bound
    to one device.
    """
    if not engine.is_network or engine.device != "auto":
        return 0
    try:
        import torch
    except ModuleNotFoundError:
        return 0
    return torch.cuda.device_count()


def _over_ray(options: argparse.Namespace, settings: SegmentSettings) -> FanOut | None:
    if options.ray is None:
        return None
    from functools import partial

    from post_segmentation.pipeline import lost_group
    from seg_research.training.ray_map import ray_map

    address = None if options.ray == "local" else options.ray
    wants_gpu = settings.engine.is_network and settings.engine.device != "cpu"
    return partial(
        ray_map,
        on_lost=lost_group,
        address=address,
        num_gpus=1 if wants_gpu else 0,
        num_tasks=options.workers,
    )


def _report_failures(failed: list[tuple[str, str]]) -> None:
    if not failed:
        return
    print(f"failed: {len(failed)} (fix the cause and run the same command again)", file=sys.stderr)
    for reason, count in Counter(reason for _, reason in failed).most_common(MAX_LISTED):
        first = next(sample_id for sample_id, why in failed if why == reason)
        print(
            f"  {first}{f' and {count - 1} more' if count > 1 else ''}: {reason}", file=sys.stderr
        )

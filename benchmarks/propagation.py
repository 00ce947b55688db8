"""What many questions about one video cost together: SAM 2 with random weights, in the geometry of
a published size.

On a CPU, SAM 2.1-large in everything but the side of its input:

  python benchmarks/propagation.py

On a GPU, SAM 2.1-large as it is:

  python benchmarks/propagation.py --device cuda --frames 100

Prints a row for each number of questions. "encoded" counts frames that went through the image
encoder, "each alone" what the same questions cost one after another, as the original asks them:
their frames, and the time of one question times their number. On the CPU seconds are processor
seconds, which a busy machine changes little.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig
from transformers.models.sam2_video.configuration_sam2_video import Sam2VideoPromptEncoderConfig

from post_segmentation.backends.sam2 import Sam2Config
from post_segmentation.propagator import MaskPrompt
from post_segmentation.sam2_propagator import Sam2Propagator
from post_segmentation.torch_device import find_device
from seg_research.core.geometry import ImageSize, PixelBox, PixelPoint
from seg_research.core.video import FramePosition

GEOMETRY: dict[str, dict[str, Any]] = {
    "tiny": {
        "width": 96,
        "heads": 1,
        "blocks": [1, 2, 7, 2],
        "global": [5, 7, 9],
        "window": [8, 4, 14, 7],
        "grid": 7,
    },
    "small": {
        "width": 96,
        "heads": 1,
        "blocks": [1, 2, 11, 2],
        "global": [7, 10, 13],
        "window": [8, 4, 14, 7],
        "grid": 7,
    },
    "base-plus": {
        "width": 112,
        "heads": 2,
        "blocks": [2, 3, 16, 3],
        "global": [12, 16, 20],
        "window": [8, 4, 14, 7],
        "grid": 14,
    },
    "large": {
        "width": 144,
        "heads": 2,
        "blocks": [2, 6, 36, 4],
        "global": [23, 33, 43],
        "window": [8, 4, 16, 8],
        "grid": 7,
    },
}


class RandomVideo:
    """Frames of noise in memory: what is measured is the model, not a disk."""

    def __init__(self, num_frames: int) -> None:
        """Draw four frames, shown in turn."""
        self.size = ImageSize(854, 480)
        self.names = [f"{position:05d}" for position in range(num_frames)]
        rng = np.random.default_rng(0)
        self._images = [
            Image.fromarray(rng.integers(0, 255, (480, 854, 3), np.uint8)) for _ in range(4)
        ]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, position: FramePosition) -> Image.Image:
        """Return a frame."""
        return self._images[position % 4]


def make_model(size: str, side_px: int) -> Sam2VideoModel:
    """Return SAM 2.1 of that size with random weights, for an input of that side."""
    torch.manual_seed(0)
    shape, grids = GEOMETRY[size], [[side_px // stride] * 2 for stride in (4, 8, 16)]
    widths = [shape["width"] * factor for factor in (1, 2, 4, 8)]
    backbone = Sam2HieraDetConfig(
        hidden_size=widths[0],
        num_attention_heads=shape["heads"],
        image_size=[side_px, side_px],
        blocks_per_stage=shape["blocks"],
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[shape["heads"] * factor for factor in (1, 2, 4, 8)],
        window_size_per_stage=shape["window"],
        global_attention_blocks=shape["global"],
        window_positional_embedding_background_size=[shape["grid"]] * 2,
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=widths[::-1], backbone_feature_sizes=grids
    )
    prompts = Sam2VideoPromptEncoderConfig(image_size=side_px)
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config=prompts,
        image_size=side_px,
        memory_attention_rope_feat_sizes=grids[-1],
    )
    return Sam2VideoModel(config).eval()


def ask(num_questions: int, num_frames: int) -> list[MaskPrompt]:
    """Return one object a question, on key frames spread over the video; one question asks in its
    middle.
    """
    rng = np.random.default_rng(num_questions)
    prompts = []
    for number in range(num_questions):
        position = FramePosition(int((number + 0.5) * num_frames / num_questions))
        x, y = rng.uniform((20, 20), (500, 250))
        prompts.append(
            MaskPrompt(position, PixelBox(x, y, x + 200, y + 150), (PixelPoint(x + 100, y + 75),))
        )
    return prompts


def measure(
    model: Sam2VideoModel, prompts: list[MaskPrompt], num_frames: int, window: int
) -> tuple[float, int]:
    """Return seconds (of the clock on a GPU, of all processor threads on the CPU) and the number of
    frames encoded.
    """
    encoded: list[int] = []
    hook = model.vision_encoder.register_forward_hook(
        lambda _module, inputs, _found: encoded.append(len(inputs[0]))
    )
    propagator = Sam2Propagator(model, window)
    propagator.open(RandomVideo(num_frames))
    for prompt in prompts:
        propagator.prompt(prompt)
    clock = time.perf_counter if model.device.type == "cuda" else time.process_time
    begin = clock()
    for _ in propagator.propagate():
        pass
    seconds = clock() - begin
    hook.remove()
    return seconds, sum(encoded)


def peak_bytes(device: torch.device) -> int:
    """Return the most memory that was ever used: the GPU's, or this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--size", choices=tuple(GEOMETRY), default="large")
    parser.add_argument(
        "--side",
        type=int,
        help="of the model's input in pixels (default: 1024 on a GPU, 512 on the CPU)",
    )
    parser.add_argument(
        "--frames", type=int, help="of the video (default: 100 on a GPU, 4 on the CPU)"
    )
    parser.add_argument("--questions", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument(
        "--window",
        type=int,
        default=Sam2Config().window,
        help="frames whose features wait in main memory",
    )
    options = parser.parse_args()
    device = find_device(options.device)
    side_px = options.side or (1024 if device.type == "cuda" else 512)
    num_frames = options.frames or (100 if device.type == "cuda" else 4)
    model = make_model(options.size, side_px).to(device)
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{torch.get_num_threads()} CPU threads"
    )
    num_millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(
        f"SAM 2.1-{options.size}, {num_millions:.0f} M random weights, input {side_px} px, "
        f"{num_frames} frames of 854x480, {name}"
    )
    measure(model, ask(1, 2), 2, 0)
    print(
        "questions  seconds  frames/s  x one question | encoded  a frame and sweep | each "
        "alone: encoded  seconds | memory GB"
    )
    one_s = 0.0
    for num_questions in options.questions:
        prompts = ask(num_questions, num_frames)
        seconds, encoded = measure(model, prompts, num_frames, options.window)
        one_s = one_s or seconds / num_questions
        met = num_frames - prompts[0].position + prompts[-1].position
        memory = peak_bytes(device)
        print(
            f"{num_questions:9d} {seconds:8.2f} {num_frames / seconds:9.2f} "
            f"{seconds / one_s:15.2f} | {encoded:7d} {encoded / met:18.2f} |"
            f" {num_questions * num_frames:19d} {num_questions * one_s:8.2f} | {memory / 1e9:9.2f}"
        )


if __name__ == "__main__":
    main()

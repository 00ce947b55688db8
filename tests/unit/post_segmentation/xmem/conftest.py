"""XMem with an eighth of its channels, saved as the published checkpoint is, and a short drawn
video.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seg_research.core.geometry import ImageSize

pytest.importorskip("torch")
import torch

REFERENCE = Path(__file__).parents[3] / "golden" / "xmem_reference.json"


class Drawn:
    """A noisy scene that drifts; counts how often each frame is read."""

    def __init__(self, num_frames=12, width=64, height=48):
        rng = np.random.default_rng(3)
        self.size = ImageSize(width, height)
        self.names = tuple(f"{number:05d}" for number in range(num_frames))
        self.reads = [0] * num_frames
        coarse = rng.integers(
            0, 256, (3 + (height + num_frames) // 8, 3 + (width + num_frames) // 8, 3), np.uint8
        )
        self._scene = np.repeat(np.repeat(coarse, 8, 0), 8, 1)

    def __len__(self):
        return len(self.names)

    def read(self, position):
        self.reads[position] += 1
        width, height = self.size
        return Image.fromarray(
            self._scene[position : position + height, position : position + width]
        )


@pytest.fixture
def drawn():
    return Drawn


@pytest.fixture(scope="session")
def random_checkpoint():
    """Make parameters under their published names; with `sensory` False those of the variant
    without sensory memory.
    """

    def make(seed=0, sensory=True):
        shapes = json.loads(REFERENCE.read_text())["sensory" if sensory else "no sensory"]["shapes"]
        generator = torch.Generator().manual_seed(seed)
        made = {}
        for name, shape in shapes.items():
            if name.endswith("num_batches_tracked"):
                made[name] = torch.tensor(0)
            elif len(shape) == 1:
                made[name] = torch.rand(shape, generator=generator) * 0.5 + (
                    0.3 if "weight" in name or "var" in name else -0.25
                )
            else:
                made[name] = (
                    torch.randn(shape, generator=generator) * (1.6 / np.prod(shape[1:])) ** 0.5
                )
        made["decoder.pred.weight"] *= 0.2
        return made

    return make


@pytest.fixture(scope="session")
def network(random_checkpoint, tmp_path_factory):
    from post_segmentation.xmem.weights import load_xmem

    path = tmp_path_factory.mktemp("xmem") / "XMem.pth"
    torch.save(random_checkpoint(), path)
    return load_xmem(path, torch.device("cpu"))

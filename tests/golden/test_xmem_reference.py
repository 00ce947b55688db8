"""XMem against probabilities that the published code computed from the same random parameters;
docs/xmem.md says how they were made.
"""

import json
from math import prod
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from post_segmentation.xmem.memory import MemorySettings
from post_segmentation.xmem.object_group import ObjectGroup
from post_segmentation.xmem.tracker import Fit
from post_segmentation.xmem.weights import load_xmem
from seg_research.core.geometry import ImageSize

FOLDER = Path(__file__).parent
NUM_FRAMES, HEIGHT, WIDTH = 26, 52, 60
SETTINGS = MemorySettings(
    every=2, top_k=10, max_frames=4, min_frames=2, num_prototypes=16, max_long_term=40
)


def parameters(shapes):
    """Random parameters by their published names, the same on every machine, such that masks are
    neither empty nor full.
    """
    made = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng(crc32(name.encode()))
        if name.endswith("num_batches_tracked"):
            values = np.zeros(shape, np.int64)
        elif name.endswith("running_var"):
            values = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        elif len(shape) == 1 and name.endswith("weight"):
            values = rng.uniform(0.2, 0.8, shape).astype(np.float32)
        else:
            gain = {"key_proj.key_proj.weight": 3.0, "decoder.pred.weight": 0.2}.get(name, 1.0)
            spread = 0.1 if len(shape) == 1 else gain * (1.6 / prod(shape[1:])) ** 0.5
            values = rng.normal(0, spread, shape).astype(np.float32)
        made[name] = torch.from_numpy(values)
    return made


def clip():
    """Normalised frames (3, H, W) of a scene that drifts, and two masks on the first."""
    rng = np.random.default_rng(7)
    scene = np.repeat(np.repeat(rng.normal(0, 1, (3, 20, 20)), 8, 1), 8, 2).astype(np.float32)
    frames = [
        torch.from_numpy(scene[:, 2 * t : 2 * t + HEIGHT, t : t + WIDTH].copy())
        for t in range(NUM_FRAMES)
    ]
    masks = np.zeros((2, HEIGHT, WIDTH), np.float32)
    masks[0, 8:30, 5:33] = 1
    masks[1, 22:45, 36:56] = 1
    return frames, torch.from_numpy(masks)


def sampled(probs):
    return probs[:, ::11, ::13].flatten()


@pytest.fixture(scope="module")
def reference():
    return json.loads((FOLDER / "xmem_reference.json").read_text())


@pytest.mark.parametrize("variant", ["sensory", "no sensory"])
def test_probabilities_equal_those_of_the_published_code(reference, variant, tmp_path):
    stored = reference[variant]
    torch.save(
        parameters({name: tuple(shape) for name, shape in stored["shapes"].items()}),
        tmp_path / "small.pth",
    )
    network = load_xmem(tmp_path / "small.pth", torch.device("cpu"))
    group = ObjectGroup(network, SETTINGS)
    fit = Fit.of(ImageSize(WIDTH, HEIGHT), None)
    left, top, _, _ = fit.padding_ltrb
    frames, masks = clip()
    with torch.inference_mode():
        for index, frame in enumerate(frames):
            code = network.encode_image(fit._padded(frame[None]))
            given = ((0, 1), fit._padded(masks)) if index == 0 else ()
            probs = group.step(code, *given, remember=index < NUM_FRAMES - 1)[
                :, top : top + HEIGHT, left : left + WIDTH
            ]
            expected = torch.tensor(stored["probabilities"][index])
            torch.testing.assert_close(
                sampled(probs),
                expected,
                atol=2e-4,
                rtol=0,
                msg=lambda text, t=index: f"frame {t}: {text}",
            )
    memory = group.cohorts[0][1]
    assert memory.long_term is not None, "the clip must consolidate"
    assert len(memory.long_term) == SETTINGS.max_long_term, (
        "the clip must fill long-term memory, so that cells are evicted"
    )

"""A drawn clip: a patterned disc crosses a textured scene behind a post, leaves on the right and
comes back.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

WIDTH, HEIGHT, RADIUS = 120, 80, 13
CENTRES = [20, 26, 32, 40, 48, 56, 64, 72, 80, 88, 98, 108, 118, 150, 150, 118, 108, 98, 88]
POST = slice(50, 62)


@dataclass
class Clip:
    """Frames on disk, named by every fourth number, and the exact masks."""

    folder: Path
    names: list[str]
    masks: list[np.ndarray]


def draw_clip(folder):
    rng = np.random.default_rng(5)
    scene = cv2.GaussianBlur(rng.integers(60, 200, (HEIGHT, WIDTH, 3)).astype(np.uint8), (0, 0), 3)
    folder.mkdir(parents=True)
    names, masks = [], []
    for number, x in enumerate(CENTRES):
        image, mask = scene.copy(), np.zeros((HEIGHT, WIDTH), np.uint8)
        y = 40 + round(6 * np.sin(number / 2))
        cv2.circle(mask, (x, y), RADIUS, 1, -1)
        cv2.circle(image, (x, y), RADIUS, (210, 40, 30), -1)
        cv2.rectangle(image, (x - 6, y - 6), (x + 1, y + 8), (250, 220, 60), -1)
        image[mask == 0] = scene[mask == 0]
        image[:, POST] = (40, 90, 60)
        mask[:, POST] = 0
        names.append(f"{4 * number:05d}")
        masks.append(mask.astype(bool))
        Image.fromarray(image).save(folder / f"{names[-1]}.png")
    return Clip(folder, names, masks)


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    return draw_clip(tmp_path_factory.mktemp("clips") / "disc")


def norm_box(mask):
    rows, columns = np.nonzero(mask)
    return [
        1000 * columns.min() / WIDTH,
        1000 * rows.min() / HEIGHT,
        1000 * columns.max() / WIDTH,
        1000 * rows.max() / HEIGHT,
    ]


def prediction_row(clip, sample_id="disc/0", position=0, **fields):
    """A line of predictions.jsonl with the exact box of one frame."""
    box = norm_box(clip.masks[position])
    region = {
        "box_norm1000": box,
        "points_norm1000": [[(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]],
    }
    keyframe = {"id": int(clip.names[position]), "position": position}
    return {
        "schema_version": 1,
        "id": sample_id,
        "video_path": str(clip.folder),
        "keyframe": keyframe,
        "objects": [region],
    } | fields


@pytest.fixture
def write_predictions(tmp_path):
    def write(*rows):
        path = tmp_path / "run" / "predictions.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture(scope="session")
def row_of():
    return prediction_row

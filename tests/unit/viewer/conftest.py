"""A run folder with one short video, two policies and everything a report can show."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from seg_research.core.masks import write_mask

STEMS = ["00003", "00006", "00009"]
SUMMARY = {
    "title": "A run",
    "command": "seg-research demo --seed 0",
    "seed": 0,
    "notes": ["a note of the run"],
    "rows": [
        {
            "name": "before RL",
            "reward": 0.25,
            "searches": 0.5,
            "valid": 0.5,
            "J": 10.0,
            "F": 12.0,
            "JF": 11.0,
        },
        {
            "name": "after RL",
            "reward": 1.75,
            "searches": 1.5,
            "valid": 1.0,
            "J": 50.0,
            "F": 60.0,
            "JF": 55.0,
            "frames": 3,
        },
    ],
    "predictions": [
        {"name": "before", "path": "before/predictions.jsonl", "masks": None},
        {"name": "after", "path": "after/predictions.jsonl", "masks": "after/seg"},
    ],
    "truth": {"parquet": "test.parquet", "meta": "meta.json"},
    "images": "image_corpus.jsonl",
}
"""What a run folder says about itself."""


def target() -> np.ndarray:
    mask_HW = np.zeros((48, 64), dtype=bool)
    mask_HW[12:36, 16:48] = True
    return mask_HW


def recorded_turns(root: Path, region: dict[str, object]) -> list[dict[str, object]]:
    """A search, a malformed turn, a key frame and an answer."""
    return [
        {
            "role": "assistant",
            "text": "<thinking>I must look this up.</thinking>"
            '<search>{"name":"text_search","query":"crest of Babir"}</search>',
            "action": {"kind": "search", "tool": "text_search", "query": "crest of Babir"},
            "images": [],
        },
        {
            "role": "user",
            "text": "1. The crest of Babir is a kite.",
            "outcome": "ok",
            "observation_summary": "crest",
            "images": [str(root / "found.jpg"), "https://example.org/never-fetched.png"],
        },
        {
            "role": "assistant",
            "text": "hm",
            "action": {"kind": "fault", "fault": "no_action", "detail": "nothing found"},
            "images": [],
        },
        {
            "role": "user",
            "text": "Write one action.",
            "outcome": "fault",
            "observation_summary": "",
            "images": [],
        },
        {
            "role": "assistant",
            "text": "<keyframe>6</keyframe>",
            "action": {"kind": "keyframe", "frame_id": 6},
            "images": [],
        },
        {
            "role": "assistant",
            "text": "…",
            "action": {"kind": "answer", "objects": [region]},
            "images": [],
        },
    ]


def record(root: Path, **changes: object) -> dict[str, object]:
    """One line of predictions.jsonl: a search, a fault, a key frame and an answer."""
    region = {
        "box_norm1000": [250, 250, 750, 750],
        "points_norm1000": [[500, 500]],
        "negative_points_norm1000": [[20, 20]],
    }
    turns = recorded_turns(root, region)
    return {
        "schema_version": 1,
        "id": "q1",
        "sample_idx": 0,
        "video_path": str(root / "video"),
        "frame_names": STEMS,
        "query": "Please find the crest.",
        "ability": "one-hop",
        "data_source": "mini",
        "turns": turns,
        "keyframe": {"id": 6, "position": 1},
        "objects": [region],
        "stop_reason": "answered",
        "rewards": {"format": 1.0, "box": 0.5, "guidance": None},
        "num_search": 1,
        "timings": {},
        "score": 1.75,
        **changes,
    }


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    root = tmp_path / "run"
    (root / "video").mkdir(parents=True)
    for stem in STEMS:
        Image.new("RGB", (64, 48), (30, 90, 160)).save(root / "video" / f"{stem}.jpg")
        write_mask(root / "truth" / f"{stem}.png", target())
        write_mask(root / "after" / "seg" / "q1" / f"{stem}.png", target())
    Image.new("RGB", (32, 32), "green").save(root / "found.jpg")
    (root / "before").mkdir()
    for name, score in (("before", 0.25), ("after", 1.75)):
        (root / name / "predictions.jsonl").write_text(json.dumps(record(root, score=score)) + "\n")
    truth = json.dumps(
        {
            "6": {
                "bbox_2d": [240, 240, 760, 760],
                "point_2d": [500, 500],
                "area": 1.0,
                "max_conn_area": 1.0,
            }
        }
    )
    row = {
        "id": "q1",
        "reward_model": {"style": "rule", "ground_truth": truth, "steps": ["crest of Babir"]},
    }
    pq.write_table(pa.Table.from_pylist([row]), root / "test.parquet")
    entries = [
        {"id": 0, "name": "kite", "filename": "kite.jpg"},
        {"id": 1, "name": "out", "image_path": "../../secret.jpg"},
    ]
    (root / "image_corpus.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (root / "meta.json").write_text(json.dumps([["q1", str(root / "truth"), "one-hop"]]))
    (root / "curve.jsonl").write_text(
        "".join(
            json.dumps(
                {
                    "step": s,
                    "reward": s / 10,
                    "terms": {"box": s / 20},
                    "searches": 1.0,
                    "valid": 0.5,
                }
            )
            + "\n"
            for s in range(1, 6)
        )
    )
    (root / "summary.json").write_text(json.dumps(SUMMARY))
    return root

"""Encode episodes once, before training: what is wrong with them shows here, and no step of the
training waits for a tokenizer.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from seg_common.errors import UsageError
from seg_common.files import atomic_path
from seg_research.core.seeding import derive_seed
from seg_research.policies.processor import allow_missing_torchvision, load_processor
from seg_research.training.sft.dataset import SCHEMA
from seg_research.training.sft.episodes import Selection, SftSettings
from seg_research.training.sft.tokens import EpisodeEncoder


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows ready to be written, and what to tell of them.

    Attributes:
        rows: as `SCHEMA` has them.
        left_out: number of episodes by the reason why they are not among them.
    """

    rows: list[dict[str, Any]]
    left_out: Counter[str]

    @property
    def num_tokens(self) -> int:
        """Tokens of all episodes."""
        return sum(len(row["input_ids"]) for row in self.rows)

    @property
    def num_said(self) -> int:
        """Tokens that carry loss."""
        return sum(sum(row["loss_mask"]) for row in self.rows)

    def describe(self, name: str) -> list[str]:
        """Say what there is, a line each."""
        longest = max((len(row["input_ids"]) for row in self.rows), default=0)
        images = sum(len(row["images"]) for row in self.rows)
        lines = [
            f"{name}: {len(self.rows)} episodes, {self.num_tokens:,} tokens, {self.num_said:,} of "
            "them with loss; "
            f"{images:,} images; the longest has {longest:,} tokens"
        ]
        return lines + [
            f"{name}: {count} episodes left out: {reason}"
            for reason, count in self.left_out.most_common()
        ]


def load_any_processor(path: str) -> Any:
    """Load the processor of a checkpoint folder, or of a model of a hub, which is fetched then.

    Raises:
        UsageError: there is none.
    """
    if Path(path).exists():
        return load_processor(Path(path))
    allow_missing_torchvision()
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"model.path={path}: cannot load its processor ({error})") from None


def encode_files(
    files: Sequence[Path],
    processor: Any,
    settings: SftSettings,
    max_length: int,
    seed: int,
    progress: Callable[[], object] = lambda: None,
) -> Encoded:
    """Encode the episodes of some files and shuffle them; `progress` is told of each.

    Raises:
        UsageError: a line is malformed, an image is missing, or nothing is left to learn from.
    """
    selection, encoder = Selection(settings), EpisodeEncoder(processor)
    rows: list[dict[str, Any]] = []
    places: dict[str, bool] = {}
    for file in files:
        for episode in selection.read(file):
            progress()
            encoded = encoder.encode(episode)
            if encoded is None:
                selection.left_out["whose turns spell chat tokens"] += 1
                continue
            if len(encoded.input_ids) > max_length:
                selection.left_out[f"longer than data.max_length={max_length}"] += 1
                continue
            images = [
                {"path": p.source, "width": p.image.width, "height": p.image.height}
                for p in episode.images
            ]
            for image in images:
                if not places.setdefault(image["path"], Path(image["path"]).is_file()):
                    raise UsageError(
                        f"{file}: episode {episode.episode_id} shows {image['path']}, which is "
                        "missing; put the images back"
                    )
            rows.append(
                {
                    "id": episode.episode_id,
                    "input_ids": encoded.input_ids,
                    "loss_mask": encoded.loss_mask,
                    "images": images,
                }
            )
    if not rows:
        reasons = ", ".join(
            f"{count} {reason}" for reason, count in selection.left_out.most_common()
        )
        names = ", ".join(map(str, files))
        raise UsageError(
            f"{names}: nothing to learn from: {reasons or 'no episodes'}; write some with: "
            "seg-research predict"
        )
    # verl's own shuffling always uses the same seed.
    random.Random(derive_seed(seed, "sft")).shuffle(rows)
    return Encoded(rows, selection.left_out)


def as_table(encoded: Encoded) -> pa.Table:
    """Lay the rows out for `SftDataset`."""
    return pa.Table.from_pylist(encoded.rows, schema=SCHEMA)


def write_encoded(path: Path, encoded: Encoded) -> None:
    """Write rows for `SftDataset`, atomically."""
    with atomic_path(path) as temporary:
        pq.write_table(as_table(encoded), temporary)

"""What verl's SFT trainer reads: episodes encoded before the run (training/sft/prepare.py);
images are made ready as they are needed.

Arrays: L tokens of an episode; N image patches of D numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import Dataset

from seg_common.errors import UsageError
from seg_research.core.byte_cache import ByteCache
from seg_research.policies.processor import IMAGE_TOKEN
from seg_research.records.image_store import read_shown

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("loss_mask", pa.list_(pa.int8())),
        (
            "images",
            pa.list_(
                pa.struct([("path", pa.string()), ("width", pa.int32()), ("height", pa.int32())])
            ),
        ),
    ]
)


class PatchCache:
    """Patches (N, D) and grids (1, 3) as the image processor makes them; the least recently used go
    first.
    """

    def __init__(self, image_processor: Any, max_bytes: int) -> None:
        """Hold at most `max_bytes` of patches."""
        self._image_processor = image_processor
        self._held: ByteCache[tuple[torch.Tensor, torch.Tensor]] = ByteCache(max_bytes)

    def get(self, path: str, width: int, height: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return patches and grid of a file at a size.

        Raises:
            UsageError: the file is missing or unreadable.
        """

        def make() -> tuple[torch.Tensor, torch.Tensor]:
            image = read_shown(Path(path), (width, height))
            made = self._image_processor(images=[image], return_tensors="pt")
            return made["pixel_values"], made["image_grid_thw"]

        return self._held.get((path, width, height), make, lambda made: made[0].nbytes)


class SftDataset(Dataset[dict[str, Any]]):
    """Encoded episodes in the order of their files."""

    def __init__(
        self,
        parquet_files: Any,
        tokenizer: Any,
        config: Any,
        processor: Any = None,
        max_samples: int = -1,
    ) -> None:
        """Read the files; the arguments are those verl gives to any dataset of this kind.

        Raises:
            UsageError: the model has no processor.
        """
        if processor is None:
            raise UsageError(
                "the model folder has no processor that loads here; copy preprocessor_config.json "
                "and its companions into it"
            )
        files = [parquet_files] if isinstance(parquet_files, str) else list(parquet_files)
        table = pa.concat_tables(
            [pq.read_table(file, schema=SCHEMA) for file in files]
        ).combine_chunks()
        self._table = table if max_samples < 0 else table.slice(0, max_samples)
        self._processor = processor
        self._image_id: int = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self._images = PatchCache(processor.image_processor, int(config.image_cache_gb * 1e9))

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, item: int) -> dict[str, Any]:
        """Return ids and mask (L,), positions (4, L) or (L,), and what the vision tower takes of
        this episode.
        """
        row = {name: self._table[name][item] for name in ("input_ids", "loss_mask", "images")}
        ids_L, mask_L = (
            torch.from_numpy(row[name].values.to_numpy().astype("int64"))
            for name in ("input_ids", "loss_mask")
        )
        made = [
            self._images.get(image["path"], image["width"], image["height"])
            for image in row["images"].as_py()
        ]
        seen = (
            {
                "pixel_values": torch.cat([m[0] for m in made]),
                "image_grid_thw": torch.cat([m[1] for m in made]),
            }
            if made
            else {}
        )
        return {
            "input_ids": ids_L,
            "loss_mask": mask_L,
            "position_ids": self._positions(ids_L, seen.get("image_grid_thw")),
            "multi_modal_inputs": seen,
        }

    def _positions(self, ids_L: torch.Tensor, grid: torch.Tensor | None) -> torch.Tensor:
        """Place tokens as verl's agent loop does: a row of text positions above the model's own
        three.
        """
        text_L = torch.arange(len(ids_L))
        if not hasattr(self._processor, "get_rope_index"):
            return text_L
        vision_3L, _ = self._processor.get_rope_index(
            input_ids=ids_L[None],
            attention_mask=torch.ones_like(ids_L)[None],
            image_grid_thw=grid,
            video_grid_thw=None,
            mm_token_type_ids=(ids_L == self._image_id).long()[None],
        )
        return torch.cat([text_L[None], vision_3L[:, 0]])

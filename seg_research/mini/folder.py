"""Where things lie in the folder of a mini benchmark, and how it is prepared for the project's own
tiny model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seg_research.mini.grid import FRAME_PX, OFFERED_FRAMES, PATCH_FACTOR_PX

ANSWERS = "answers.jsonl"
"""What each question means; for demonstrations and for judging, never for a policy."""

MANIFEST = "manifest.json"
TEXT = "local_KB/text_corpus.jsonl"
IMAGES = "local_KB/image_corpus.jsonl"


@dataclass(frozen=True, slots=True)
class MiniFolder:
    """The files of a mini benchmark."""

    root: Path

    @property
    def text(self) -> Path:
        """Passages to search."""
        return self.root / TEXT

    @property
    def images(self) -> Path:
        """Images to search."""
        return self.root / IMAGES

    @property
    def answers(self) -> Path:
        """What each question means."""
        return self.root / ANSWERS

    def truth(self, split: str) -> Path:
        """List of ground-truth masks, as `seg-research evaluate` takes it."""
        return self.root / f"{split}_meta_mapping.json"

    def parquet(self, split: str) -> Path:
        """Questions of a split, prepared for the tiny model."""
        return self.root / f"{split}_{OFFERED_FRAMES}_{FRAME_PX}_{FRAME_PX}.parquet"

    def preparing(self, split: str, seed: int) -> list[str]:
        """Return the words after `seg-research` that prepare a split for the tiny model."""
        sizes = {
            "num_frames": OFFERED_FRAMES,
            "max_size": FRAME_PX,
            "min_size": FRAME_PX,
            "patch_factor": PATCH_FACTOR_PX,
        }
        words = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
        return [
            "data",
            "okvos",
            "--root",
            str(self.root),
            "--split",
            split,
            *words,
            "--seed",
            str(seed),
        ]

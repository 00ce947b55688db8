"""The prepared parquet as verl reads it: rows carry paths, never pixels, because verl stores every
field of a row with each trajectory.
"""

from __future__ import annotations

from typing import Any

from verl.utils.dataset.rl_dataset import RLHFDataset

from seg_research.training.launch.config import as_list
from seg_research.training.run_contract import AGENT_NAME, VALIDATION_KEY

FRAMES_KEY = "seg_frames"
"""The row's images (path and shown size), under a name that verl does not expand into pixels."""


class SegDataset(RLHFDataset):
    """Rows for `SegAgentLoop`, which builds the prompt itself from the recipe; verl's own image
    loading is never reached.
    """

    def __getitem__(self, item: int) -> dict[str, Any]:
        row = dict(self.dataframe[item])
        row[FRAMES_KEY] = row.pop(self.image_key)
        # verl wants a chat beside every row, for its logs; what is shown is built by the recipe.
        # Rows of version 1 hold one that an older recipe wrote.
        row.pop(self.prompt_key, None)
        row |= {
            "raw_prompt": [{"role": "user", "content": row["question"]}],
            "agent_name": AGENT_NAME,
            "index": item,
            "tools_kwargs": {},
            "interaction_kwargs": {},
            VALIDATION_KEY: self._is_validation(),
        }
        row["dummy_tensor"] = _dummy()
        return row

    def _is_validation(self) -> bool:
        # Checked before the run: no file is in both lists.
        return set(self.original_data_files) <= set(as_list(self.config.val_files))

    def maybe_filter_out_long_prompts(self, dataframe: Any = None) -> Any:
        """Keep every row: a prompt that is too long stops the run and does not vanish."""
        return dataframe


def _dummy() -> Any:
    import torch

    return torch.zeros(1, dtype=torch.uint8)  # verl batches need one tensor field

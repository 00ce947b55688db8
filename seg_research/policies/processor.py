"""Load tokenizer and processor of a Qwen-VL checkpoint, also on machines without torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seg_common import model_hub
from seg_common.errors import UsageError

_MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
IMAGE_TOKEN = "<|image_pad|>"
VISION_TOKENS = (
    IMAGE_TOKEN,
    "<|video_pad|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
)
"""Never sampled: a made-up placeholder would claim an image that does not exist and break the
trainer.
"""


def allow_missing_torchvision() -> None:
    """Let `AutoProcessor` load Qwen3-VL without torchvision.

    transformers builds a video processor that needs torchvision although we only ever show
    images; where it is missing, a stand-in of the same name is registered that can be loaded but
    not called. Does nothing where torchvision is installed.
    """
    from transformers.utils.import_utils import is_torchvision_available

    if is_torchvision_available():
        return
    from transformers import processing_utils
    from transformers.models.auto.video_processing_auto import AutoVideoProcessor
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLConfig
    from transformers.video_processing_utils import BaseVideoProcessor

    class Qwen3VLVideoProcessor(BaseVideoProcessor):
        """Stand-in; its name is what the registry looks up."""

        model_input_names = ("pixel_values_videos", "video_grid_thw")
        patch_size = 16
        temporal_patch_size = 2
        merge_size = 2

    AutoVideoProcessor.register(Qwen3VLConfig, Qwen3VLVideoProcessor, exist_ok=True)
    # The processor checks its parts against classes found on the top-level module, where the lazy
    # import hides this one.
    vars(processing_utils.transformers_module)["BaseVideoProcessor"] = BaseVideoProcessor


def check_model_folder(path: Path) -> None:
    """See that a folder holds a checkpoint, before anything is started for it.

    Raises:
        UsageError: it does not.
    """
    if not (path / "config.json").is_file():
        raise UsageError(
            f"{path}: not a model folder (no config.json); make the tiny one with: seg-research"
            f" model --out {path}"
        )


def find_policy_folder(name: str) -> Path:
    """Return the folder of a policy that is named by its folder or by its id on the hub.

    Raises:
        UsageError: it is neither, or the hub cannot be reached.
    """
    tiny = f"make the tiny one with: seg-research model --out {name}"
    return model_hub.find_model_folder(
        name,
        _MODEL_FILES,
        not_a_model=f"not a model folder (no config.json); {tiny}",
        offline=f"give its folder; or {tiny}",
    )


def load_processor(path: Path) -> Any:
    """Load the processor (with its tokenizer) of a local checkpoint folder.

    Raises:
        UsageError: the folder is missing or is not a checkpoint with a processor.
    """
    check_model_folder(path)
    allow_missing_torchvision()
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot load its processor ({error})") from None

"""Models of the SAM 2 family with random weights, small enough for a test: 1.2 million parameters,
some milliseconds a frame.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    EdgeTamVideoConfig,
    EdgeTamVideoModel,
    Sam2HieraDetConfig,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VisionConfig,
    Sam3TrackerVideoConfig,
    Sam3TrackerVideoModel,
)
from transformers.models.edgetam_video import configuration_edgetam_video as edgetam
from transformers.models.sam2_video import configuration_sam2_video as sam2
from transformers.models.sam3 import configuration_sam3 as sam3
from transformers.models.sam3_tracker_video import configuration_sam3_tracker_video as sam3_tracker

SIDE_PX, HIDDEN, GRID = 64, 128, 4
"""Of the model's input; channels; cells a side of the coarsest map."""


def tiny_sam2(seed: int = 0) -> Sam2VideoModel:
    """Return a SAM 2.1 in miniature."""
    torch.manual_seed(seed)
    decoder = sam2.Sam2VideoMaskDecoderConfig(**_DECODER)
    prompts = sam2.Sam2VideoPromptEncoderConfig(**_PROMPTS)
    config = Sam2VideoConfig(
        vision_config=_vision(),
        prompt_encoder_config=prompts,
        mask_decoder_config=decoder,
        image_size=SIDE_PX,
        memory_attention_feed_forward_hidden_size=32,
        **_MEMORY,
    )
    return _randomised(Sam2VideoModel(config))


def tiny_edgetam(seed: int = 0) -> EdgeTamVideoModel:
    """Return an EdgeTAM in miniature, on SAM 2's image encoder: its own needs timm."""
    torch.manual_seed(seed)
    config = EdgeTamVideoConfig(
        vision_config=_vision(),
        prompt_encoder_config=edgetam.EdgeTamVideoPromptEncoderConfig(**_PROMPTS),
        mask_decoder_config=edgetam.EdgeTamVideoMaskDecoderConfig(**_DECODER),
        image_size=SIDE_PX,
        memory_attention_mlp_hidden_size=32,
        memory_attention_rope_k_sizes=[GRID, GRID],
        perceiver_resampler_num_latents=GRID * GRID,
        perceiver_resampler_num_latents_2d=GRID * GRID,
        **_MEMORY,
    )
    return _randomised(EdgeTamVideoModel(config))


def tiny_sam3_tracker(seed: int = 0) -> Sam3TrackerVideoModel:
    """Return the tracker of SAM 3 in miniature."""
    torch.manual_seed(seed)
    backbone = sam3.Sam3ViTConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE_PX,
        patch_size=16,
        window_size=2,
        global_attn_indexes=[1],
        pretrain_image_size=SIDE_PX,
    )
    vision = sam3.Sam3VisionConfig(
        backbone_config=backbone, fpn_hidden_size=HIDDEN, backbone_feature_sizes=_grids()
    )
    config = Sam3TrackerVideoConfig(
        **{"image_size": SIDE_PX},  # no declared field: its setter hands it on
        vision_config=vision,
        prompt_encoder_config=sam3_tracker.Sam3TrackerVideoPromptEncoderConfig(**_PROMPTS),
        mask_decoder_config=sam3_tracker.Sam3TrackerVideoMaskDecoderConfig(**_DECODER),
        memory_attention_feed_forward_hidden_size=32,
        **_MEMORY,
    )
    return _randomised(Sam3TrackerVideoModel(config))


_PROMPTS: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "image_size": SIDE_PX,
    "patch_size": SIDE_PX // GRID,
}
_DECODER: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "mlp_dim": 32,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 32,
}
_MEMORY: dict[str, Any] = {
    "memory_attention_hidden_size": HIDDEN,
    "memory_attention_num_layers": 1,
    "memory_attention_rope_feat_sizes": [GRID, GRID],
    "memory_encoder_hidden_size": HIDDEN,
    "memory_encoder_output_channels": 64,  # transformers has this number in its code, too
    "mask_downsampler_embed_dim": HIDDEN,
    "memory_fuser_embed_dim": HIDDEN,
    "memory_fuser_intermediate_dim": 32,
    "num_maskmem": 4,
    "max_object_pointers_in_encoder": 6,
}


def _grids() -> list[list[int]]:
    return [[GRID * factor] * 2 for factor in (4, 2, 1)]


def _vision() -> Sam2VisionConfig:
    widths = [16, 32, 64, 128]
    backbone = Sam2HieraDetConfig(
        hidden_size=widths[0],
        image_size=[SIDE_PX, SIDE_PX],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[8, 4, 4, 2],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )
    return Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=widths[::-1],
        backbone_feature_sizes=_grids(),
        fpn_hidden_size=HIDDEN,
    )


def _randomised(model: Any) -> Any:
    """Fill what would begin at zero, and let the decoder believe that there are objects."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.05
        model.mask_decoder.pred_obj_score_head.proj_out.bias += 0.5
    return model.eval()

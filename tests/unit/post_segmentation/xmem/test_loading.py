"""`sam2+xmem` as it is loaded: weights from disk on both sides."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
import torch
import transformers
from transformers.models.sam2_video.configuration_sam2_video import (
    Sam2VideoMaskDecoderConfig,
    Sam2VideoPromptEncoderConfig,
)

from post_segmentation.propagator import MaskPrompt
from post_segmentation.xmem.propagator import load_sam2_xmem
from seg_common.errors import UsageError
from seg_research.core.geometry import PixelBox

SIDE = 64


@pytest.fixture(scope="module")
def weights(tmp_path_factory, random_checkpoint):
    """Folder of a tiny SAM 2 and file of a small XMem, both random."""
    folder = tmp_path_factory.mktemp("weights")
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=16,
        num_attention_heads=1,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[8, 4, 4, 2],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )
    sizes = [[SIDE // stride] * 2 for stride in (4, 8, 16)]
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=sizes,
        fpn_hidden_size=128,
    )
    config = transformers.Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(
            hidden_size=128, image_size=SIDE, patch_size=16
        ),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(
            hidden_size=128, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=32
        ),
        image_size=SIDE,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[SIDE // 16] * 2,
        memory_encoder_hidden_size=128,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=32,
    )
    torch.manual_seed(5)
    transformers.Sam2VideoModel(config).save_pretrained(folder / "sam2")
    torch.save(random_checkpoint(), folder / "XMem.pth")
    return folder


def masks_of(backend, video, prompts):
    backend.open(video)
    for prompt in prompts:
        backend.prompt(prompt)
    found = np.zeros(
        (len(prompts), len(video), video.size.height_px, video.size.width_px), np.bool_
    )
    for position, masks, objects in backend.propagate():
        found[list(objects), position] = masks
    backend.close()
    return found


def test_weights_on_disk_become_masks_the_same_each_time_and_for_each_question_as_alone(
    weights, drawn
):
    prompts = [
        MaskPrompt(0, PixelBox(8, 8, 40, 40), group_id=0),
        MaskPrompt(0, PixelBox(30, 4, 60, 30), group_id=1),
    ]
    prompts.append(MaskPrompt(2, PixelBox(20, 20, 50, 44), group_id=2))
    found, video = [], drawn(num_frames=3)
    for _ in range(2):
        backend = load_sam2_xmem(str(weights / "sam2"), str(weights / "XMem.pth"), "cpu")
        found.append(masks_of(backend, video, prompts))
    assert np.array_equal(*found)
    assert found[0].any()
    for index, prompt in enumerate(prompts):
        assert np.array_equal(masks_of(backend, video, [prompt])[0], found[0][index])


def test_missing_weights_are_named(weights):
    with pytest.raises(UsageError, match=r"nowhere\.pth"):
        load_sam2_xmem(str(weights / "sam2"), str(weights / "nowhere.pth"), "cpu")
    with pytest.raises(UsageError, match=r"no config\.json"):
        load_sam2_xmem(str(weights), str(weights / "XMem.pth"), "cpu")

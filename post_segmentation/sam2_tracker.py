"""How SAM 2 follows objects, for many at once, over the modules of transformers' `Sam2VideoModel`
and its relatives.

transformers' own session takes its objects one by one, wants all of them prompted on one frame,
lets the prompt of one change how the others are remembered, and keeps every frame it has seen. Here
each object has a `Track` of its own that nothing of another reaches: objects are laid side by side
in a batch and no more, each may begin on its own frame, and a track keeps what the next frames can
ask for. What costs most, the features of a frame, is computed once and handed in. Tests hold the
masks against transformers' own.

Axes: B objects of a batch, C channels, H rows, W columns, L = H·W cells of the coarsest feature
map, M tokens of one remembered frame, P points of a prompt, Q remembered object pointers.
"""

# Types of torch and transformers are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers.models.sam2_video.modeling_sam2_video import NO_OBJ_SCORE, get_1d_sine_pe

from post_segmentation.sam2_track import Track, Vision, within_reach

_MASK_LOGIT_SPAN, _MASK_LOGIT_MIN = 20.0, -10.0
"""A given mask becomes logits of -10 outside and 10 inside, as the published code has it."""


class _Offsets(NamedTuple):
    """How many frames back an object's memories and pointers lie; objects that share them go
    through one batch.
    """

    memories: tuple[int, ...]
    pointers: tuple[int, ...]


class _Seen(NamedTuple):
    """What the mask decoder says of a batch of objects on one frame."""

    logits_BHW: Tensor
    score_B11: Tensor
    pointer_B1C: Tensor


class Sam2Tracker:
    """The tracking loop of one model."""

    def __init__(self, model: Any, objects_per_batch: int) -> None:
        """Take a model in evaluation mode.

        Args:
            model: `Sam2VideoModel`, `EdgeTamVideoModel` or `Sam3TrackerVideoModel`.
            objects_per_batch: 1 gives each object the very numbers it would have alone; more is
                faster on a GPU, where batched kernels round differently in the last bits.
        """
        self._model, self._config = model, model.config
        self._objects_per_batch = objects_per_batch
        self._memory_reach = model.num_maskmem - 1
        self._num_splits = max(1, model.hidden_dim // model.mem_dim)
        # EdgeTAM remembers fewer tokens, laid out batch first.
        self._resamples = hasattr(model, "spatial_perceiver")
        self._memory_encoding_M1C: Tensor | None = None

    @torch.inference_mode()
    def encode(self, pixels_1CHW: Tensor) -> Vision:
        """Compute the features of one frame."""
        with self._precision():
            features = self._model.get_image_features(pixels_1CHW, return_dict=True)
        return Vision(tuple(features.fpn_hidden_states), features.fpn_position_encoding[-1])

    @torch.inference_mode()
    def begin(
        self, vision: Vision, position: int, points_P2: Tensor, labels_P: Tensor
    ) -> tuple[Track, Tensor]:
        """Prompt an object on a frame; return its track and mask logits (1, H, W).

        Args:
            vision: features of that frame.
            position: of that frame.
            points_P2: x, y in pixels of the model's input; a box is its two corners.
            labels_P: 1 inside, 0 outside, 2 and 3 the first and second corner of a box.
        """
        config = self._config
        many = (
            config.multimask_output_in_sam
            and config.multimask_min_pt_num <= len(labels_P) <= config.multimask_max_pt_num
        )
        with self._precision():
            conditioned = self._as_image(
                vision.maps[-1] + self._model.no_memory_embedding, level=-1
            )
            seen = self._decode(
                vision, conditioned, points_P2[None, None], labels_P[None, None], many
            )
            memory_M1C = self._remember(vision, seen, is_prompted=True)
        return Track(position, memory_M1C, seen.pointer_B1C), seen.logits_BHW

    @torch.inference_mode()
    def begin_with_mask(
        self, vision: Vision, position: int, mask_11HW: Tensor
    ) -> tuple[Track, Tensor]:
        """Start an object from its mask, which is taken as it is; return its track and the mask's
        logits (1, H, W).

        Args:
            vision: features of the frame.
            position: of that frame.
            mask_11HW: 0 and 1, of the size of the model's input.
        """
        model = self._model
        with self._precision():
            image_1CHW = self._as_image(vision.maps[-1], level=-1)
            # Only the object's pointer is taken from the decoder, not its mask.
            seen = self._decode(
                vision, image_1CHW, None, None, True, model.mask_downsample(mask_11HW)
            )
            logits_11HW = _MASK_LOGIT_SPAN * mask_11HW + _MASK_LOGIT_MIN
            score_111 = logits_11HW.amax(dim=(1, 2, 3))[:, None, None]
            shown = (score_111 > 0).to(seen.pointer_B1C.dtype)
            pointer_11C = shown * seen.pointer_B1C + (1 - shown) * model.no_object_pointer
            small_11HW = functional.interpolate(
                logits_11HW.float(),
                size=tuple(model.prompt_encoder.mask_input_size),
                mode="bilinear",
                align_corners=False,
                antialias=True,
            )
            memory_M1C = self._encode_memory(vision, logits_11HW, score_111, is_prompted=True)
        return Track(position, memory_M1C, pointer_11C), small_11HW[0]

    @torch.inference_mode()
    def follow(
        self, vision: Vision, position: int, tracks: Sequence[Track], step: int, num_frames: int
    ) -> Tensor:
        """Find objects on the next frame and remember it; return mask logits (N, H, W) in the order
        of the tracks.

        Args:
            vision: features of the frame.
            position: of the frame; beyond each track's key frame, and just beyond the frame
                followed last.
            tracks: of N objects.
            step: 1 forward in time, -1 backward. Forward comes first; backward begins with what
                forward saw beside the key frame.
            num_frames: of the video.
        """
        num_pointers = min(num_frames, self._config.max_object_pointers_in_encoder)
        alike: defaultdict[_Offsets, list[int]] = defaultdict(list)
        for index, track in enumerate(tracks):
            alike[self._offsets(track, position, step, num_pointers)].append(index)
        logits: dict[int, Tensor] = {}
        for offsets, indices in alike.items():
            for start in range(0, len(indices), self._objects_per_batch):
                chosen = indices[start : start + self._objects_per_batch]
                batch = [tracks[index] for index in chosen]
                with self._precision():
                    conditioned = self._attend(vision, batch, position, step, offsets, num_pointers)
                    seen = self._decode(vision, conditioned, None, None, self._many_while_tracking)
                    memory_MBC = self._remember(vision, seen, is_prompted=False)
                for row, (index, track) in enumerate(zip(chosen, batch, strict=True)):
                    logits[index] = seen.logits_BHW[row]
                    # Copies: a slice would keep the whole batch alive for as long as one of its
                    # objects needs it.
                    track.memories[position] = memory_MBC[:, row : row + 1].clone()
                    track.pointers[position] = seen.pointer_B1C[row : row + 1].clone()
                    track.memories = within_reach(
                        track.memories, track.key, position, step, self._memory_reach
                    )
                    track.pointers = within_reach(
                        track.pointers, track.key, position, step, num_pointers - 1
                    )
        return torch.stack([logits[index] for index in range(len(tracks))])

    def _offsets(self, track: Track, position: int, step: int, num_pointers: int) -> _Offsets:
        return _Offsets(
            tuple(
                offset
                for offset in range(self._memory_reach, 0, -1)
                if position - step * offset in track.memories
            ),
            tuple(
                offset
                for offset in range(1, num_pointers)
                if position - step * offset in track.pointers
            ),
        )

    def _attend(
        self,
        vision: Vision,
        tracks: Sequence[Track],
        position: int,
        step: int,
        offsets: _Offsets,
        num_pointers: int,
    ) -> Tensor:
        """Return the frame's coarsest map (B, C, H, W) as each object's memory makes it look."""
        temporal_T11C = self._model.memory_temporal_positional_encoding
        # The key frame has no place in time: the last of the learned encodings stands for it.
        memories = [torch.cat([track.key_memory_M1C for track in tracks], dim=1)]
        encodings = [self._memory_encoding_M1C + temporal_T11C[-1]]
        for offset in offsets.memories:
            memories.append(
                torch.cat([track.memories[position - step * offset] for track in tracks], dim=1)
            )
            encodings.append(self._memory_encoding_M1C + temporal_T11C[offset - 1])
        pointers_QBC, pointer_encodings_QBC = self._pointers(
            tracks, position, step, offsets.pointers, num_pointers
        )
        encodings = [encoding.expand(-1, len(tracks), -1) for encoding in encodings]
        extra = {"num_spatial_memory_tokens": len(memories)} if self._resamples else {}
        attended = self._model.memory_attention(
            current_vision_features=vision.maps[-1].expand(-1, len(tracks), -1),
            current_vision_position_embeddings=vision.encoding_L1C,
            memory=torch.cat([*memories, pointers_QBC], dim=0).to(torch.float32),
            memory_posision_embeddings=torch.cat([*encodings, pointer_encodings_QBC], dim=0),
            num_object_pointer_tokens=len(pointers_QBC),
            **extra,
        )
        attended_BLC = attended.reshape(len(tracks), -1, self._model.hidden_dim)
        return attended_BLC.transpose(1, 2).reshape(
            len(tracks), self._model.hidden_dim, *self._model.backbone_feature_sizes[-1]
        )

    def _pointers(
        self,
        tracks: Sequence[Track],
        position: int,
        step: int,
        offsets: Sequence[int],
        num_pointers: int,
    ) -> tuple[Tensor, Tensor]:
        """Return object pointers, cut to the width of the memory, and their encodings in time; both
        (tokens, B, C).
        """
        rows = [torch.cat([track.key_pointer_11C for track in tracks])]
        rows += [
            torch.cat([track.pointers[position - step * offset] for track in tracks])
            for offset in offsets
        ]
        pointers_QBC = torch.stack(rows).flatten(2)
        ages = [
            [(position - track.key) * step for track in tracks],
            *([offset] * len(tracks) for offset in offsets),
        ]
        encodings_QBC = self._encode_ages(
            torch.tensor(ages, dtype=torch.float32, device=pointers_QBC.device) / (num_pointers - 1)
        )
        num_rows, batch_size, _ = pointers_QBC.shape
        split = (
            pointers_QBC.reshape(num_rows, batch_size, self._num_splits, -1)
            .permute(0, 2, 1, 3)
            .flatten(0, 1)
        )
        return split, encodings_QBC.repeat_interleave(self._num_splits, dim=0)

    def _encode_ages(self, ages_QB: Tensor) -> Tensor:
        if not self._config.enable_temporal_pos_encoding_for_object_pointers:
            return ages_QB.new_zeros(*ages_QB.shape, self._model.mem_dim)
        return self._model.temporal_positional_encoding_projection_layer(
            get_1d_sine_pe(ages_QB, dim=self._model.hidden_dim)
        )

    def _decode(
        self,
        vision: Vision,
        image_BCHW: Tensor,
        points_11P2: Tensor | None,
        labels_11P: Tensor | None,
        many: bool,
        mask_11HW: Tensor | None = None,
    ) -> _Seen:
        """Ask the mask decoder; with `many`, for several masks of which the one it trusts most is
        taken. A mask is given at the resolution of the prompt encoder.
        """
        model, batch_size = self._model, len(image_BCHW)
        if points_11P2 is None:
            points_11P2 = image_BCHW.new_zeros(batch_size, 1, 1, 2)
            labels_11P = image_BCHW.new_full((batch_size, 1, 1), -1, dtype=torch.int32)
        sparse, dense = model.prompt_encoder(
            input_points=points_11P2,
            input_labels=labels_11P,
            input_boxes=None,
            input_masks=mask_11HW,
        )
        fine = [
            self._as_image(level.expand(-1, batch_size, -1), index)
            for index, level in enumerate(vision.maps[:-1])
        ]
        masks_B1KHW, trust_B1K, tokens_B1KC, score_B11 = model.mask_decoder(
            image_embeddings=image_BCHW,
            image_positional_embeddings=model.get_image_wide_positional_embeddings().repeat(
                batch_size, 1, 1, 1
            ),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=many,
            high_resolution_features=fine,
        )
        rows, best = (
            torch.arange(batch_size, device=image_BCHW.device),
            trust_B1K[:, 0].argmax(dim=-1),
        )
        appears = score_B11 > 0
        logits_BHW = torch.where(appears, masks_B1KHW[rows, 0, best], NO_OBJ_SCORE)
        pointer_B1C = model.object_pointer_proj(tokens_B1KC[rows, :, best])
        shown = appears.to(pointer_B1C.dtype)
        return _Seen(
            logits_BHW, score_B11, shown * pointer_B1C + (1 - shown) * model.no_object_pointer
        )

    def _remember(self, vision: Vision, seen: _Seen, is_prompted: bool) -> Tensor:
        """Return the frame with its masks as memory (M, B, C)."""
        side = (self._model.image_size, self._model.image_size)
        large_B1HW = functional.interpolate(
            seen.logits_BHW[:, None].float(), size=side, mode="bilinear", align_corners=False
        )
        return self._encode_memory(
            vision, large_B1HW.to(seen.logits_BHW.dtype), seen.score_B11, is_prompted=is_prompted
        )

    def _encode_memory(
        self, vision: Vision, large_B1HW: Tensor, score_B11: Tensor, *, is_prompted: bool
    ) -> Tensor:
        """Return the frame with masks of the size of the model's input as memory (M, B, C)."""
        # EdgeTAM's resampler takes one object at a time (it views what it has expanded).
        size = 1 if self._resamples else len(large_B1HW)
        memories: list[Tensor] = []
        for logits, scores in zip(
            large_B1HW.split(size),
            score_B11.split(size),
            strict=True,
        ):
            memory, encoding = self._model._encode_new_memory(
                current_vision_feats=vision.maps[-1].expand(-1, len(logits), -1),
                pred_masks_high_res=logits,
                object_score_logits=scores,
                is_mask_from_pts=is_prompted,
            )
            if self._resamples:
                memory, encoding = memory.transpose(0, 1), encoding.transpose(0, 1)
            memories.append(memory)
            if self._memory_encoding_M1C is None:
                # The same for every frame and object.
                self._memory_encoding_M1C = encoding[:, :1].clone()
        return torch.cat(memories, dim=1)

    @property
    def _many_while_tracking(self) -> bool:
        config = self._config
        return (
            config.multimask_output_in_sam
            and config.multimask_output_for_tracking
            and config.multimask_min_pt_num <= 0
        )

    def _precision(self) -> torch.autocast:
        device = self._model.device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda")

    def _as_image(self, cells_LBC: Tensor, level: int) -> Tensor:
        height, width = self._model.backbone_feature_sizes[level]
        return cells_LBC.permute(1, 2, 0).reshape(
            cells_LBC.size(1), cells_LBC.size(2), height, width
        )

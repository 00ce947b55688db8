"""The network of XMem: what an image looks like (key), what a mask on it means (value), and from
both back to a mask.

Axes: O objects, C channels, H rows, W columns. A feature map is named after its stride, the input
pixels that one of its cells stands for: `stride16_1CHW`. Objects are the batch axis, since no layer
mixes them; what they know of each other is the mask of all others that the value encoder is shown.
Every layer is as published; parameter names are ours (`weights.py` has the table).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 16
"""Input pixels per cell of keys, values and sensory memory, in each direction."""


@dataclass(frozen=True, slots=True)
class Widths:
    """Numbers of channels; the defaults are the published ones.

    Attributes:
        key: of keys and selections.
        value: of values.
        sensory: of the sensory memory; 0 for the variant without.
        stem: after the first convolution of both encoders; all other widths follow from it.
    """

    key: int = 64
    value: int = 512
    sensory: int = 64
    stem: int = 64


class ImageCode(NamedTuple):
    """All that is computed of one frame, whatever the objects."""

    image_13HW: Tensor
    skip4_1CHW: Tensor
    skip8_1CHW: Tensor
    """What the decoder adds at strides 4 and 8."""
    stride16_1CHW: Tensor
    key_1CHW: Tensor
    shrinkage_11HW: Tensor
    """At least 1: how sure a remembered cell is of itself."""
    selection_1CHW: Tensor
    """0 to 1: which channels a looking cell cares for."""


class XMem(nn.Module):
    """The whole network; it holds parameters only, all memory is outside."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.widths = widths
        self.key_encoder = Trunk(Bottleneck, (3, 4, 6), 3, widths.stem)  # ResNet-50
        self.key_head = KeyHead(16 * widths.stem, widths.key)
        self.value_encoder = ValueEncoder(widths)
        self.decoder = Decoder(widths)

    def encode_image(self, image_13HW: Tensor) -> ImageCode:
        """Encode a frame whose sides are multiples of `STRIDE`, normalised."""
        stride4, stride8, stride16 = self.key_encoder(image_13HW)
        skip4, skip8 = self.decoder.up4.skip(stride4), self.decoder.up8.skip(stride8)
        return ImageCode(image_13HW, skip4, skip8, stride16, *self.key_head(stride16))

    def encode_masks(
        self, code: ImageCode, probs_OHW: Tensor, sensory_OCHW: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the values (O, C, H/16, W/16) to be remembered and the sensory memory after its
        deep update.
        """
        return self.value_encoder(code, probs_OHW, sensory_OCHW)

    def decode(
        self, code: ImageCode, readout_OCHW: Tensor, sensory_OCHW: Tensor, *, update: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the mask logits (O, H, W) and the sensory memory, updated if asked for."""
        return self.decoder(code, readout_OCHW, sensory_OCHW, update)


class Residual(nn.Module):
    """Two 3×3 convolutions with batch norm and a shortcut: the block of ResNet-18."""

    expansion = 1

    def __init__(self, num_in: int, num_mid: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = (
            nn.Conv2d(num_in, num_mid, 3, stride, 1, bias=False),
            nn.BatchNorm2d(num_mid),
        )
        self.conv2, self.norm2 = (
            nn.Conv2d(num_mid, num_mid, 3, 1, 1, bias=False),
            nn.BatchNorm2d(num_mid),
        )
        self.shortcut = _shortcut(num_in, num_mid, stride)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x_NCHW)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(x_NCHW))


class Bottleneck(nn.Module):
    """1×1, 3×3 (which strides) and 1×1 convolution with batch norm and a shortcut: the block of
    ResNet-50.
    """

    expansion = 4

    def __init__(self, num_in: int, num_mid: int, stride: int) -> None:
        super().__init__()
        num_out = num_mid * self.expansion
        self.conv1, self.norm1 = nn.Conv2d(num_in, num_mid, 1, bias=False), nn.BatchNorm2d(num_mid)
        self.conv2, self.norm2 = (
            nn.Conv2d(num_mid, num_mid, 3, stride, 1, bias=False),
            nn.BatchNorm2d(num_mid),
        )
        self.conv3, self.norm3 = nn.Conv2d(num_mid, num_out, 1, bias=False), nn.BatchNorm2d(num_out)
        self.shortcut = _shortcut(num_in, num_out, stride)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x_NCHW)))
        inner = F.relu(self.norm2(self.conv2(inner)))
        return F.relu(self.norm3(self.conv3(inner)) + self.shortcut(x_NCHW))


def _shortcut(num_in: int, num_out: int, stride: int) -> nn.Module:
    if stride == 1 and num_in == num_out:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(num_in, num_out, 1, stride, bias=False), nn.BatchNorm2d(num_out))


class Trunk(nn.Module):
    """A ResNet as far as stride 16."""

    def __init__(
        self,
        block: type[Residual | Bottleneck],
        depths: tuple[int, int, int],
        num_in: int,
        stem: int,
    ) -> None:
        super().__init__()
        self.stem_conv, self.stem_norm = (
            nn.Conv2d(num_in, stem, 7, 2, 3, bias=False),
            nn.BatchNorm2d(stem),
        )
        wide = stem * block.expansion
        self.stage4 = _stage(block, depths[0], stem, stem, stride=1)
        self.stage8 = _stage(block, depths[1], wide, 2 * stem, stride=2)
        self.stage16 = _stage(block, depths[2], 2 * wide, 4 * stem, stride=2)

    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features of stride 4, 8 and 16."""
        stem = F.max_pool2d(F.relu(self.stem_norm(self.stem_conv(x_NCHW))), 3, 2, 1)
        stride4 = self.stage4(stem)
        stride8 = self.stage8(stride4)
        return stride4, stride8, self.stage16(stride8)


def _stage(
    block: type[Residual | Bottleneck], depth: int, num_in: int, num_mid: int, stride: int
) -> nn.Sequential:
    rest = [block(num_mid * block.expansion, num_mid, 1) for _ in range(depth - 1)]
    return nn.Sequential(block(num_in, num_mid, stride), *rest)


class KeyHead(nn.Module):
    """Key, shrinkage and selection of every cell."""

    def __init__(self, num_in: int, num_key: int) -> None:
        super().__init__()
        self.key = nn.Conv2d(num_in, num_key, 3, padding=1)
        self.shrinkage = nn.Conv2d(num_in, 1, 3, padding=1)
        self.selection = nn.Conv2d(num_in, num_key, 3, padding=1)

    def forward(self, x_1CHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.key(x_1CHW), self.shrinkage(x_1CHW) ** 2 + 1, self.selection(x_1CHW).sigmoid()


class ValueEncoder(nn.Module):
    """ResNet-18 over image, own mask and the sum of all other masks; then fused with the image's
    features.
    """

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.trunk = Trunk(Residual, (2, 2, 2), 5, widths.stem)
        self.fuse = Fusion(16 * widths.stem + 4 * widths.stem, widths.value)
        self.gate = Gate(widths.value, widths.sensory) if widths.sensory else None

    def forward(
        self, code: ImageCode, probs_OHW: Tensor, sensory_OCHW: Tensor
    ) -> tuple[Tensor, Tensor]:
        others_OHW = probs_OHW.sum(0, keepdim=True) - probs_OHW
        masks_O2HW = torch.stack([probs_OHW, others_OHW], 1)
        _, _, stride16 = self.trunk(_beside(code.image_13HW, masks_O2HW))
        value_OCHW = self.fuse(_beside(code.stride16_1CHW, stride16))
        return value_OCHW, sensory_OCHW if self.gate is None else self.gate(
            value_OCHW, sensory_OCHW
        )


def _beside(image_1CHW: Tensor, objects_OCHW: Tensor) -> Tensor:
    """Put the image's channels before those of every object."""
    return torch.cat([image_1CHW.expand(len(objects_OCHW), -1, -1, -1), objects_OCHW], 1)


class PreActivation(nn.Module):
    """Two 3×3 convolutions, each after its ReLU, and a shortcut (a third 3×3 convolution where the
    width changes).
    """

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.shortcut = (
            nn.Identity() if num_in == num_out else nn.Conv2d(num_in, num_out, 3, padding=1)
        )
        self.conv1 = nn.Conv2d(num_in, num_out, 3, padding=1)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1)

    def forward(self, x_OCHW: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(F.relu(x_OCHW)))) + self.shortcut(x_OCHW)


class Attention(nn.Module):
    """CBAM: scale the channels by what all cells say, then the cells by what all channels say (Woo
    et al., ECCV 2018).
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(num_channels, num_channels // 16)
        self.expand = nn.Linear(num_channels // 16, num_channels)
        self.place = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x_OCHW: Tensor) -> Tensor:
        mean_OC, peak_OC = x_OCHW.mean((2, 3)), x_OCHW.amax((2, 3))
        score_OC = self.expand(F.relu(self.squeeze(mean_OC))) + self.expand(
            F.relu(self.squeeze(peak_OC))
        )
        x_OCHW = x_OCHW * score_OC.sigmoid()[:, :, None, None]
        summary_O2HW = torch.cat([x_OCHW.amax(1, keepdim=True), x_OCHW.mean(1, keepdim=True)], 1)
        return x_OCHW * self.place(summary_O2HW).sigmoid()


class Fusion(nn.Module):
    """Mix the image's features with an object's."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.block1 = PreActivation(num_in, num_out)
        self.attention = Attention(num_out)
        self.block2 = PreActivation(num_out, num_out)

    def forward(self, x_OCHW: Tensor) -> Tensor:
        x_OCHW = self.block1(x_OCHW)
        return self.block2(x_OCHW + self.attention(x_OCHW))


class Gate(nn.Module):
    """Renew the sensory memory: a GRU whose candidate sees the old state unforgotten, as the
    published one does.
    """

    def __init__(self, num_in: int, num_sensory: int) -> None:
        super().__init__()
        self.transform = nn.Conv2d(num_in + num_sensory, 3 * num_sensory, 3, padding=1)

    def forward(self, x_OCHW: Tensor, sensory_OCHW: Tensor) -> Tensor:
        forget, update, new = self.transform(torch.cat([x_OCHW, sensory_OCHW], 1)).chunk(3, 1)
        update = update.sigmoid()
        return forget.sigmoid() * sensory_OCHW * (1 - update) + update * new.tanh()


class SensoryUpdate(nn.Module):
    """Renew the sensory memory from the decoder's features of all three strides."""

    def __init__(self, num_mid: int, num_sensory: int) -> None:
        super().__init__()
        self.from16 = nn.Conv2d(2 * num_mid, num_mid, 1)
        self.from8 = nn.Conv2d(num_mid, num_mid, 1)
        self.from4 = nn.Conv2d(num_mid + 1, num_mid, 1)
        self.gate = Gate(num_mid, num_sensory)

    def forward(
        self, stride16: Tensor, stride8: Tensor, stride4: Tensor, sensory_OCHW: Tensor
    ) -> Tensor:
        mixed = (
            self.from16(stride16)
            + self.from8(F.avg_pool2d(stride8, 2))
            + self.from4(F.avg_pool2d(stride4, 4))
        )
        return self.gate(mixed, sensory_OCHW)


class Upsample(nn.Module):
    """Double the resolution and add the image's features of the finer stride, which `skip` has made
    fit.
    """

    def __init__(self, num_skip: int, num_in: int, num_out: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(num_skip, num_in, 3, padding=1)
        self.block = PreActivation(num_in, num_out)

    def forward(self, skip_1CHW: Tensor, x_OCHW: Tensor) -> Tensor:
        return self.block(skip_1CHW + _enlarge(x_OCHW, 2))


def _enlarge(x_NCHW: Tensor, factor: int) -> Tensor:
    return F.interpolate(x_NCHW, scale_factor=factor, mode="bilinear", align_corners=False)


class Decoder(nn.Module):
    """From what memory says of an object to its mask."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        stem = widths.stem
        self.fuse = Fusion(16 * stem + widths.value + widths.sensory, 8 * stem)
        self.update = SensoryUpdate(4 * stem, widths.sensory) if widths.sensory else None
        self.up8 = Upsample(8 * stem, 8 * stem, 4 * stem)
        self.up4 = Upsample(4 * stem, 4 * stem, 4 * stem)
        self.predict = nn.Conv2d(4 * stem, 1, 3, padding=1)

    def forward(
        self, code: ImageCode, readout_OCHW: Tensor, sensory_OCHW: Tensor, update: bool
    ) -> tuple[Tensor, Tensor]:
        stride16 = self.fuse(
            _beside(code.stride16_1CHW, torch.cat([readout_OCHW, sensory_OCHW], 1))
        )
        stride8 = self.up8(code.skip8_1CHW, stride16)
        stride4 = self.up4(code.skip4_1CHW, stride8)
        logits_O1HW = self.predict(F.relu(stride4))
        if update and self.update is not None:
            sensory_OCHW = self.update(
                stride16, stride8, torch.cat([stride4, logits_O1HW], 1), sensory_OCHW
            )
        return _enlarge(logits_O1HW, 4)[:, 0], sensory_OCHW


def aggregate(probs_OHW: Tensor) -> Tensor:
    """Let objects and background compete: return probabilities (1 + O, H, W), background first,
    that sum to 1 at every pixel.

    The background's probability is that no object is there; then every probability becomes its
    odds, normalised.
    """
    background_1HW = (1 - probs_OHW).prod(0, keepdim=True)
    all_HW = torch.cat([background_1HW, probs_OHW]).clamp(1e-7, 1 - 1e-7)
    return all_HW.logit().softmax(0)

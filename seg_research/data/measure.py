"""What a mask tells of its target: box, deepest point and areas, in the units of a prepared row.

Axes: H, W mask.
"""

# scipy has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from seg_research.core.coarse_mask import CoarseMask
from seg_research.core.geometry import (
    ImageSize,
    PixelBox,
    PixelPoint,
    box_to_norm1000,
    point_to_norm1000,
)
from seg_research.core.masks import Mask, mask_box
from seg_research.data.rows import Coordinates
from seg_research.data.truth_json import mask_to_json

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=np.int8)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a mask tells: tight box, deepest inside point, pixels, and pixels of the largest
    8-connected component.
    """

    box: PixelBox
    point: PixelPoint
    area_px: int
    max_conn_area_px: int


def measure(mask_HW: Mask) -> Measured | None:
    """Measure a mask; None if it is empty."""
    box = mask_box(mask_HW)
    if box is None:
        return None
    height, width = mask_HW.shape
    # One pixel around the box is enough: the background pixel nearest to any target pixel is never
    # farther out.
    top, left = max(0, int(box.y1) - 1), max(0, int(box.x1) - 1)
    crop_HW = mask_HW[top : min(height, int(box.y2) + 2), left : min(width, int(box.x2) + 2)]
    depth_HW = _depth(crop_HW)
    row, column = np.unravel_index(int(np.argmax(depth_HW)), crop_HW.shape)
    components_HW = np.zeros(crop_HW.shape, np.int32)
    ndimage.label(crop_HW, structure=_EIGHT_NEIGHBOURS, output=components_HW)
    return Measured(
        box=box,
        point=PixelPoint(float(left + column), float(top + row)),
        area_px=int(np.count_nonzero(crop_HW)),
        max_conn_area_px=int(np.bincount(components_HW.ravel())[1:].max()),
    )


def _depth(mask_HW: Mask) -> NDArray[np.float64]:
    """Return each pixel's distance to the nearest background pixel; where there is no background,
    to the image border.
    """
    if mask_HW.all():
        return np.asarray(ndimage.distance_transform_edt(np.pad(mask_HW, 1)))[1:-1, 1:-1]
    return np.asarray(ndimage.distance_transform_edt(mask_HW))


def measure_frames(
    masks: Mapping[int, Mask], shown: ImageSize, coordinates: Coordinates
) -> dict[str, dict[str, Any]]:
    """Measure one target on some frames, as JSON (`data/truth_json.py`); frames that do not show it
    are left out.

    Args:
        masks: by frame id, all of one size.
        shown: size at which the frames are shown.
        coordinates: what boxes and points count. They are whole numbers.

    Returns:
        The frames by id; areas are divided by the largest of them.
    """
    found: dict[str, dict[str, Any]] = {}
    for frame_id, mask_HW in masks.items():
        measured = measure(mask_HW)
        if measured is None:
            continue
        size = ImageSize(mask_HW.shape[1], mask_HW.shape[0])
        box, point = _coordinates(measured, size, shown, coordinates)
        found[str(frame_id)] = {
            "bbox_2d": box,
            "point_2d": point,
            "area": measured.area_px,
            "max_conn_area": measured.max_conn_area_px,
            "mask": mask_to_json(CoarseMask.of(mask_HW)),
        }
    for key in ("area", "max_conn_area"):
        largest = max((frame[key] for frame in found.values()), default=1)
        for frame in found.values():
            frame[key] /= largest
    return found


def _coordinates(
    measured: Measured, size: ImageSize, shown: ImageSize, coordinates: Coordinates
) -> tuple[list[int], list[int]]:
    box, point = measured.box, measured.point
    if coordinates is Coordinates.NORM1000:
        norm_box, norm_point = box_to_norm1000(box, size), point_to_norm1000(point, size)
        return [int(v) for v in norm_box.as_list()], [int(norm_point.x), int(norm_point.y)]
    per_x, per_y = shown.width_px / size.width_px, shown.height_px / size.height_px
    corners = [box.x1 * per_x, box.y1 * per_y, box.x2 * per_x, box.y2 * per_y]
    return [round(v) for v in corners], [round(point.x * per_x), round(point.y * per_y)]

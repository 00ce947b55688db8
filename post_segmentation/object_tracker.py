"""How one object is followed from frame to frame by its looks: the template of the key frame,
optical flow, colours, and what moves before a still camera. Axes: H rows, W columns.
"""

# scipy has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from post_segmentation.grabcut_mask import Bgr, Window, cut_guess, grow, shrink, window_around
from post_segmentation.static_background import StaticBackground
from post_segmentation.template_tracker import (
    Match,
    Similarity,
    Template,
    chain,
    dense_flow,
    motion_of,
    moved,
)
from seg_research.core.masks import Mask, mask_box

MIN_AGREEMENT = 0.6
"""Share of the placed template that must look as on the key frame for the template to decide."""
MIN_AGREEMENT_HIDDEN = 0.15
"""The same where the flow says that nothing of the object is elsewhere: the rest is behind
something.
"""
MIN_AGREEMENT_FOUND = 0.7
"""The same for an object found by searching, which may be another one of the same colour."""
MIN_TEMPLATE_AREA = 0.03
MIN_AREA = 0.02
"""Below these shares of its key-frame area an object counts as gone."""
MIN_COLOUR = 0.5
"""A piece whose pixels are, on average, less like the object than this share of what they were on
the key frame is background.
"""
MIN_RESTING = 0.7
"""The same for background that may be the object itself, resting there on most frames."""
MIN_MOVING = 0.7
"""Share of the object's key-frame pixels that differ from the background for it to count as a
moving thing before a still camera.
"""
MIN_CHANGED = 0.3
"""Share of such a thing that must differ from the background wherever it is; else it has slipped
onto the background.
"""
MIN_SAME_COLOURS = 0.65
"""Overlap of colour histograms from which a moving thing may be the lost object, if `BLOB_AREAS`
fits too.
"""
BLOB_AREAS = (0.3, 2.0)
COLOUR_BITS = 4
"""Bits a channel of the colour histograms."""


class WorkingFrame(NamedTuple):
    """One frame at working size; `changed_HW` marks what is not background, where the camera stands
    still.
    """

    bgr: Bgr
    grey: NDArray[np.uint8]
    changed_HW: Mask | None


@dataclass(frozen=True, slots=True)
class ObjectModel:
    """What the key frame taught about one object; an empty template means that its prompt held
    nothing.
    """

    template: Template | None
    colour_share: NDArray[np.float32]
    """Probability that a pixel of this colour is the object's, by colour bin."""
    own_share: float
    """Mean of that over the object's own pixels on the key frame: how far colour tells it from its
    surroundings.
    """
    colours: NDArray[np.float64]
    """Share of the object's pixels in each colour bin."""
    moves: bool
    """Whether it differs from a known background."""
    looks_like_it_HW: Mask
    """Background of the object's colours: there the object itself may have rested on most frames.
    """


@dataclass(frozen=True, slots=True)
class ObjectState:
    """Where an object is on one frame.

    Attributes:
        pose: of the template; the last known one while the object is lost.
        centre: (x, y) where it was last seen.
        rigid_votes: frames on which the template decided, less those on which the flow did.
        num_lost: frames since then.
    """

    mask_HW: Mask
    pose: Similarity
    centre: NDArray[np.float64]
    rigid_votes: int = 1
    num_lost: int = 0

    @classmethod
    def on_key_frame(cls, mask_HW: Mask) -> ObjectState:
        """Return the state that everything starts from."""
        return cls(mask_HW, np.eye(2, 3), _centre(mask_HW))

    @property
    def rigid(self) -> bool:
        """Tell whether the object mostly kept its shape so far."""
        return self.rigid_votes > 0


def learn_object(
    frame: WorkingFrame, mask_HW: Mask, background: StaticBackground | None
) -> ObjectModel:
    """Remember the object's looks and which colours tell it from the rest of its key frame."""
    inside, outside = (
        _colour_counts(frame.bgr, mask_HW),
        _colour_counts(frame.bgr, ~grow(mask_HW, 3)),
    )
    share = np.where(inside > 1e-6, inside / (inside + outside + 1e-9), 0)
    own_share = float(share[_colour_bins(frame.bgr[mask_HW])].mean()) if mask_HW.any() else 0.0
    moves = frame.changed_HW is not None and _covered(mask_HW, frame.changed_HW) > MIN_MOVING
    looks_like_it_HW = (
        np.ones_like(mask_HW)
        if background is None
        else share[_colour_bins(background.smooth)] > MIN_RESTING * own_share
    )
    return ObjectModel(
        Template.of(frame.bgr, mask_HW),
        share.astype(np.float32),
        own_share,
        inside,
        moves,
        looks_like_it_HW,
    )


def _colour_counts(image: Bgr, mask_HW: Mask) -> NDArray[np.float64]:
    """Return the share of pixels in each colour bin, spread to the neighbouring bins."""
    bins = 1 << COLOUR_BITS
    counts = np.zeros((bins, bins, bins))
    np.add.at(counts, _colour_bins(image[mask_HW]), 1.0)
    spread = uniform_filter(counts, size=3, mode="constant")
    return spread / max(spread.sum(), 1e-9)


def _colour_bins(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.intp], ...]:
    """Return the bin indices of pixels (…, 3), one array a channel."""
    return tuple(np.moveaxis((pixels >> (8 - COLOUR_BITS)).astype(np.intp), -1, 0))


def follow_object(
    known: ObjectModel, state: ObjectState, before: WorkingFrame, frame: WorkingFrame
) -> ObjectState:
    """Follow one object from one frame to the next."""
    template = known.template
    if template is None:
        return state
    box = mask_box(state.mask_HW)
    window = (
        None
        if box is None
        else window_around(
            box, state.mask_HW.shape, round(max(32, 0.6 * max(box.x2 - box.x1, box.y2 - box.y1)))
        )
    )
    match = _place(template, state, window, before, frame)
    if _decides(match, template, MIN_AGREEMENT):
        return _seen(template, state, _cut_match(match, frame), match.pose)
    if window is None:
        return (
            _find_again(known, template, state, frame)
            or _find_moving(known, template, state, frame)
            or _unseen(state)
        )
    if state.rigid and (found := _find_again(known, template, state, frame)):
        return found
    mask_HW = _carry(known, state.mask_HW, window, before, frame)
    if (
        _decides(match, template, MIN_AGREEMENT_HIDDEN)
        and _covered(mask_HW, match.agreeing_HW) > MIN_AGREEMENT
    ):
        return _seen(template, state, _cut_match(match, frame), match.pose)
    return (
        _unseen(state) if _is_background(known, mask_HW, frame) else _seen(template, state, mask_HW)
    )


def _place(
    template: Template,
    state: ObjectState,
    window: Window | None,
    before: WorkingFrame,
    frame: WorkingFrame,
) -> Match:
    """Register the template from where the flow says that the object went, and from where it was;
    return the better match.
    """
    matches: list[Match] = []
    if window is not None:
        motion = motion_of(
            state.mask_HW[window], dense_flow(before.grey[window], frame.grey[window]), window
        )
        if motion is not None:
            matches.append(template.register(chain(state.pose, motion), frame.bgr, frame.grey))
    if not any(_decides(match, template, MIN_AGREEMENT) for match in matches):
        matches.append(template.register(state.pose, frame.bgr, frame.grey))
    return max(matches, key=lambda match: match.agreement)


def _covered(mask_HW: Mask, by_HW: Mask) -> float:
    return np.count_nonzero(mask_HW & by_HW) / max(np.count_nonzero(mask_HW), 1)


def _decides(match: Match, template: Template, wanted: float) -> bool:
    return (
        match.agreement > wanted
        and int(np.count_nonzero(match.agreeing_HW)) > MIN_TEMPLATE_AREA * template.area_px
    )


def _cut_match(match: Match, frame: WorkingFrame) -> Mask:
    """Cut around the agreeing part of a placed template; small holes in it are noise, large ones
    something in front.
    """
    closed = cv2.morphologyEx(
        match.agreeing_HW.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)
    ).astype(np.bool_)
    return cut_guess(
        frame.bgr, closed & match.placed_HW, match.agreeing_HW & shrink(match.placed_HW, 1)
    )


def _carry(
    known: ObjectModel, mask_HW: Mask, window: Window, before: WorkingFrame, frame: WorkingFrame
) -> Mask:
    """Carry a mask along the flow and keep what still has the object's colours."""
    flow_HW2 = dense_flow(frame.grey[window], before.grey[window])
    rows, columns = np.indices(flow_HW2.shape[:2], np.float32)
    carried = (
        cv2.remap(
            mask_HW[window].astype(np.float32),
            columns + flow_HW2[..., 0],
            rows + flow_HW2[..., 1],
            cv2.INTER_LINEAR,
        )
        > 0.5
    )
    guess_HW = np.zeros(mask_HW.shape, np.bool_)
    guess_HW[window] = carried
    known_background_HW = np.zeros_like(guess_HW)
    if known.moves and frame.changed_HW is not None:
        known_background_HW = ~(frame.changed_HW | known.looks_like_it_HW)
    guess_HW &= ~known_background_HW
    cut_HW = cut_guess(frame.bgr, guess_HW, shrink(guess_HW, 3)) & ~known_background_HW
    share_HW = known.colour_share[_colour_bins(frame.bgr)]
    num_labels, labels_HW = cv2.connectedComponents(cut_HW.astype(np.uint8), connectivity=8)
    kept = [
        label
        for label in range(1, num_labels)
        if share_HW[labels_HW == label].mean() > MIN_COLOUR * known.own_share
    ]
    return np.isin(labels_HW, kept)


def _find_again(
    known: ObjectModel, template: Template, state: ObjectState, frame: WorkingFrame
) -> ObjectState | None:
    """Look for a lost object around the place where it vanished."""
    radius_px = template.area_px**0.5 * (1.5 + 0.5 * state.num_lost)
    pose = template.search(state.pose, frame.bgr, state.centre, radius_px)
    if pose is None:
        return None
    match = template.register(pose, frame.bgr, frame.grey)
    if not _decides(match, template, MIN_AGREEMENT_FOUND):
        return None
    mask_HW = _cut_match(match, frame)
    # Part of a larger thing of the same colour has no edge where the template ends; part of the
    # background does not change.
    common, either = (
        np.count_nonzero(mask_HW & match.placed_HW),
        np.count_nonzero(mask_HW | match.placed_HW),
    )
    real = common > MIN_AGREEMENT_FOUND * either and not _is_background(known, mask_HW, frame)
    return _seen(template, state, mask_HW, match.pose) if real else None


def _is_background(known: ObjectModel, mask_HW: Mask, frame: WorkingFrame) -> bool:
    return (
        known.moves
        and frame.changed_HW is not None
        and _covered(mask_HW, frame.changed_HW) < MIN_CHANGED
    )


def _find_moving(
    known: ObjectModel, template: Template, state: ObjectState, frame: WorkingFrame
) -> ObjectState | None:
    """Look among what moves before a still camera for something of the lost object's size and
    colours, whatever its shape now.
    """
    if state.rigid or not known.moves or frame.changed_HW is None:
        return None
    num_labels, labels_HW, stats, _ = cv2.connectedComponentsWithStats(
        frame.changed_HW.astype(np.uint8), connectivity=8
    )
    best, best_overlap = None, MIN_SAME_COLOURS
    for label in range(1, num_labels):
        if not BLOB_AREAS[0] < stats[label, cv2.CC_STAT_AREA] / template.area_px < BLOB_AREAS[1]:
            continue
        blob_HW = labels_HW == label
        overlap = float(np.minimum(_colour_counts(frame.bgr, blob_HW), known.colours).sum())
        if overlap > best_overlap:
            best, best_overlap = blob_HW, overlap
    if best is None:
        return None
    return _seen(template, state, cut_guess(frame.bgr, best, shrink(best, 3)))


def _seen(
    template: Template, state: ObjectState, mask_HW: Mask, pose: Similarity | None = None
) -> ObjectState:
    """Return the new state; without a pose from the template, the last one moves along with the
    mask.
    """
    if np.count_nonzero(mask_HW) <= MIN_AREA * template.area_px:
        return _unseen(state)
    centre = _centre(mask_HW)
    if pose is not None:
        return ObjectState(mask_HW, pose, centre, state.rigid_votes + 1)
    return ObjectState(
        mask_HW, moved(state.pose, centre - state.centre), centre, state.rigid_votes - 1
    )


def _unseen(state: ObjectState) -> ObjectState:
    return replace(state, mask_HW=np.zeros_like(state.mask_HW), num_lost=state.num_lost + 1)


def _centre(mask_HW: Mask) -> NDArray[np.float64]:
    rows, columns = np.nonzero(mask_HW)
    return np.array([columns.mean(), rows.mean()]) if len(rows) else np.zeros(2)

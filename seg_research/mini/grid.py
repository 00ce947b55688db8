"""What the benchmark's own tiny model can tell apart: coordinates on a grid, images in squares."""

COORDINATE_STEP = 20
"""Answers for the tiny model are rounded to this many thousandths, so that a coordinate is one
token.
"""

PATCH_FACTOR_PX = 16
"""Side of the square of an image that one token covers."""

OFFERED_FRAMES, FRAME_PX, KEYFRAME_PX = 4, 64, 96
"""Frames of a clip that it is offered, the side of each, and the side of the key frame."""

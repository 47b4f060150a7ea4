"""Geometric augmentation, applied alike to pixels, boxes and masks: a pure function of (key, policy, size).

In this order: horizontal flip, shift by whole pixels, zoom and rotate about the centre. Row i depends on key i only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillroom.config.schema import Augment
from stillroom.data.hash_rng import uniform
from stillroom.types import IntArray

FLIP, SHIFT_X, SHIFT_Y, ZOOM, ROTATE = range(5)  # streams of random numbers
MIN_VISIBLE = 0.25  # proportion of a box's area that must stay in the image for the box to be kept

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The geometric transforms of B images of one size.

    Attributes:
        height, width: of the images, in pixels.
        flip: [B] bool, horizontal flip.
        right, down: [B] int64, shift in pixels.
        cosine, sine: [B] float32, of the angle, divided by the zoom. The output pixel at p, measured from the centre,
            is sampled at R(-angle) p / zoom.
        shifts: whether the policy flips or shifts.
        resamples: whether the policy zooms or rotates.
    """

    height: int
    width: int
    flip: NDArray[np.bool_]
    right: IntArray
    down: IntArray
    cosine: Floats
    sine: Floats
    shifts: bool
    resamples: bool

    def rows(self) -> IntArray:
        """[B, H] source row of each output row after the shift; values outside 0..H-1 lie beyond the image."""
        return np.arange(self.height) - self.down[:, None]

    def columns(self) -> IntArray:
        """[B, W] source column of each output column after the shift, in the flipped image."""
        return np.arange(self.width) - self.right[:, None]

    def unflip_columns(self, columns: IntArray) -> IntArray:
        """Columns of the flipped image as columns of the original image."""
        return np.where(self.flip[:, None], self.width - 1 - columns, columns)

    def grid(self) -> Tensor:
        """Sampling grid [B, H, W, 2] of zoom and rotation, for `grid_sample` with align_corners=False."""
        height, width = self.height, self.width
        cosine, sine = self.cosine[:, None, None], self.sine[:, None, None]
        x = ((2 * np.arange(width, dtype=np.float32) + 1) / width - 1)[None, None, :]
        y = ((2 * np.arange(height, dtype=np.float32) + 1) / height - 1)[None, :, None]
        aspect = np.float32(height / width)
        return torch.from_numpy(np.stack([cosine * x - sine * aspect * y, sine / aspect * x + cosine * y], axis=-1))


def geometry(keys: IntArray, policy: Augment, *, height: int, width: int) -> Geometry:
    """The transforms drawn for the images with these keys.

    Args:
        keys: int64 [B], from `make_key`.
        policy: the largest amount of each transform.
        height: of the images, in pixels.
        width: of the images, in pixels.
    """
    zoom = 1 + symmetric_uniform(keys, policy.zoom, stream=ZOOM)
    angles = np.radians(symmetric_uniform(keys, policy.rotate, stream=ROTATE).astype(np.float64)).tolist()
    # One value at a time through libm: the last bit of numpy's vectorised sine may depend on the position in the array.
    cosine = np.array([math.cos(angle) for angle in angles], dtype=np.float32) / zoom
    sine = np.array([math.sin(angle) for angle in angles], dtype=np.float32) / zoom
    return Geometry(
        height=height,
        width=width,
        flip=uniform(keys, stream=FLIP) < (0.5 if policy.flip else 0.0),
        right=_shift(keys, policy.shift, width, stream=SHIFT_X),
        down=_shift(keys, policy.shift, height, stream=SHIFT_Y),
        cosine=cosine,
        sine=sine,
        shifts=bool(policy.flip or policy.shift),
        resamples=bool(policy.zoom or policy.rotate),
    )


def symmetric_uniform(keys: IntArray, amount: float, *, stream: int) -> Floats:
    """One number in [-amount, amount) per key."""
    return ((2 * uniform(keys, stream=stream) - 1) * amount).astype(np.float32)


def reflect_index(index: IntArray, side: int) -> IntArray:
    """Map indices outside 0..side-1 inside by mirroring at the edges, the edge pixel repeated: -1 -> 0, -2 -> 1."""
    wrapped = index % (2 * side)
    return np.minimum(wrapped, 2 * side - 1 - wrapped)


def transform_boxes(boxes: Tensor, moves: Geometry) -> tuple[Tensor, Tensor]:
    """Transform boxes like the pixels: the axis-aligned bounding box of the four moved corners, clipped to the image.

    Args:
        boxes: [B, M, 4] left, top, right, bottom relative to the image.
        moves: the transforms of the B images.

    Returns:
        The boxes [B, M, 4], and [B, M] the proportion of each box's area that is still in the image, 0..1 (0 for a box
        without area).
    """
    height, width = moves.height, moves.width
    size = np.array([width, height, width, height], dtype=np.float64)
    moved = boxes.numpy().astype(np.float64) * size
    left, right = moved[..., 0], moved[..., 2]
    flip = moves.flip[:, None]
    moved[..., 0], moved[..., 2] = np.where(flip, width - right, left), np.where(flip, width - left, right)
    moved += np.stack([moves.right, moves.down, moves.right, moves.down], axis=-1)[:, None]
    moved, visible = _clip(moved, size)  # pixels that were shifted out do not come back when the image is zoomed out
    if moves.resamples:
        moved, remaining = _clip(_bounding_boxes(moved, moves), size)
        visible = visible * remaining
    return torch.from_numpy((moved / size).astype(np.float32)), torch.from_numpy(visible)


def _clip(boxes: Doubles, size: Doubles) -> tuple[Doubles, Doubles]:
    """Boxes clipped to the image, and the proportion of their area that remains."""
    clipped = np.clip(boxes, 0, size)
    before, after = _area(boxes), _area(clipped)
    return clipped, np.divide(after, before, out=np.zeros_like(after), where=before > 0)


def _area(boxes: Doubles) -> Doubles:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _bounding_boxes(boxes: Doubles, moves: Geometry) -> Doubles:
    """Axis-aligned bounding boxes of zoomed and rotated boxes: the inverse of the mapping in `Geometry.grid`."""
    x, y = boxes[..., [0, 2, 0, 2]] - moves.width / 2, boxes[..., [1, 1, 3, 3]] - moves.height / 2
    cosine, sine = (part.astype(np.float64)[:, None, None] for part in (moves.cosine, moves.sine))
    length = cosine**2 + sine**2  # 1 / zoom²
    x, y = (cosine * x + sine * y) / length + moves.width / 2, (cosine * y - sine * x) / length + moves.height / 2
    return np.stack([x.min(-1), y.min(-1), x.max(-1), y.max(-1)], axis=-1)


def _shift(keys: IntArray, fraction: float, side: int, *, stream: int) -> IntArray:
    """One integer in -n..n per key, uniformly distributed, n = fraction * side rounded."""
    limit = round(fraction * side)
    return np.floor(uniform(keys, stream=stream) * (2 * limit + 1)).astype(np.int64) - limit

"""Where things in a training image move to: a pure function of (key, policy, size), the same for pixels, boxes, masks.

In this order: flip left to right, shift by whole pixels, zoom and rotate about the centre. Everything is a number for
each image: row i depends on key i alone.
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

FLIP, SHIFT_X, SHIFT_Y, ZOOM, ROTATE = range(5)
MIN_VISIBLE = 0.25

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How B images of one size move.

    Attributes:
        height, width: of the images, in pixels.
        flip: [B] bool, mirrored left to right.
        right, down: [B] int64, pixels.
        cosine, sine: [B] float32, of the angle, divided by the zoom. The pixel at p, from the centre, shows what lay at
            R(-angle) p / zoom.
        shifts: whether anything is flipped or shifted.
        resamples: whether anything is zoomed or rotated.
    """

    height: int
    width: int
    flip: NDArray[np.bool_]
    right: Numbers
    down: Numbers
    cosine: Floats
    sine: Floats
    shifts: bool
    resamples: bool

    def rows(self) -> Numbers:
        """[B, H] the row that each row shows after flip and shift; outside of 0..H-1 there is none."""
        return np.arange(self.height) - self.down[:, None]

    def columns(self) -> Numbers:
        """[B, W], likewise."""
        return np.arange(self.width) - self.right[:, None]

    def unflip_columns(self, columns: Numbers) -> Numbers:
        """Columns of the flipped image as those of the image."""
        return np.where(self.flip[:, None], self.width - 1 - columns, columns)

    def grid(self) -> Tensor:
        """[B, H, W, 2] for `grid_sample` with align_corners=False: what each pixel shows after zoom and rotation."""
        height, width = self.height, self.width
        cosine, sine = self.cosine[:, None, None], self.sine[:, None, None]
        x = ((2 * np.arange(width, dtype=np.float32) + 1) / width - 1)[None, None, :]
        y = ((2 * np.arange(height, dtype=np.float32) + 1) / height - 1)[None, :, None]
        aspect = np.float32(height / width)
        return torch.from_numpy(np.stack([cosine * x - sine * aspect * y, sine / aspect * x + cosine * y], axis=-1))


def geometry(keys: Numbers, policy: Augment, *, height: int, width: int) -> Geometry:
    """How the images with these keys move.

    Args:
        keys: int64 [B], from `key`.
        policy: the largest amount of each change.
        height: of the images, in pixels.
        width: likewise.
    """
    zoom = 1 + symmetric_uniform(keys, policy.zoom, stream=ZOOM)
    angles = np.radians(symmetric_uniform(keys, policy.rotate, stream=ROTATE).astype(np.float64)).tolist()
    # one by one through libm: numpy's vectorised sine may give another last bit at the end of an array
    cosine = np.array([math.cos(angle) for angle in angles], dtype=np.float32) / zoom
    sine = np.array([math.sin(angle) for angle in angles], dtype=np.float32) / zoom
    return Geometry(
        height=height,
        width=width,
        flip=uniform(keys, stream=FLIP) < (0.5 if policy.flip else 0.0),
        right=_pixels(keys, policy.shift, width, stream=SHIFT_X),
        down=_pixels(keys, policy.shift, height, stream=SHIFT_Y),
        cosine=cosine,
        sine=sine,
        shifts=bool(policy.flip or policy.shift),
        resamples=bool(policy.zoom or policy.rotate),
    )


def symmetric_uniform(keys: Numbers, amount: float, *, stream: int) -> Floats:
    """A number in [-amount, amount) for each key."""
    return ((2 * uniform(keys, stream=stream) - 1) * amount).astype(np.float32)


def reflect_index(index: Numbers, side: int) -> Numbers:
    """Indices beyond 0..side-1 mirrored at the edge: -1 is 0, -2 is 1, as often as needed."""
    around = index % (2 * side)
    return np.minimum(around, 2 * side - 1 - around)


def transform_boxes(boxes: Tensor, how: Geometry) -> tuple[Tensor, Tensor]:
    """Boxes that follow the pixels: the smallest upright box around the four moved corners, cut at the image's edge.

    Args:
        boxes: [B, M, 4] left, top, right, bottom in shares of the image.
        how: the move of the B images.

    Returns:
        The boxes [B, M, 4], and [B, M] the share of each box's area that is still in the image, 0..1 (0 of a box
        without area).
    """
    size = np.array([how.width, how.height, how.width, how.height], dtype=np.float64)
    placed = boxes.numpy().astype(np.float64) * size
    left, right = placed[..., 0], placed[..., 2]
    flip = how.flip[:, None]
    placed[..., 0], placed[..., 2] = np.where(flip, how.width - right, left), np.where(flip, how.width - left, right)
    placed += np.stack([how.right, how.down, how.right, how.down], axis=-1)[:, None]
    placed, visible = _cut(placed, size)  # what is shifted out does not come back when the image is zoomed out
    if how.resamples:
        placed, still = _cut(_turned(placed, how), size)
        visible = visible * still
    return torch.from_numpy((placed / size).astype(np.float32)), torch.from_numpy(visible)


def _cut(boxes: Doubles, size: Doubles) -> tuple[Doubles, Doubles]:
    """Boxes cut at the edge, and the share of their area that remains."""
    cut = np.clip(boxes, 0, size)
    before, after = _area(boxes), _area(cut)
    return cut, np.divide(after, before, out=np.zeros_like(after), where=before > 0)


def _area(boxes: Doubles) -> Doubles:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _turned(boxes: Doubles, how: Geometry) -> Doubles:
    """The upright boxes around zoomed and rotated ones: the inverse of what `grid` asks for."""
    x, y = boxes[..., [0, 2, 0, 2]] - how.width / 2, boxes[..., [1, 1, 3, 3]] - how.height / 2
    cosine, sine = (part.astype(np.float64)[:, None, None] for part in (how.cosine, how.sine))
    length = cosine**2 + sine**2  # 1 / zoom²
    x, y = (cosine * x + sine * y) / length + how.width / 2, (cosine * y - sine * x) / length + how.height / 2
    return np.stack([x.min(-1), y.min(-1), x.max(-1), y.max(-1)], axis=-1)


def _pixels(keys: Numbers, share: float, side: int, *, stream: int) -> Numbers:
    """A whole number of pixels in -n..n for each key, each equally likely, n = share of the side, rounded."""
    most = round(share * side)
    return np.floor(uniform(keys, stream=stream) * (2 * most + 1)).astype(np.int64) - most

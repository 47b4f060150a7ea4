"""How a training image changes between two looks: a pure function of (image, key, policy).

Row i of the result depends on image i, key i and the policy alone, bit for bit: not on the batch around it, nor on the
number of threads. Random numbers are hashes of (key, what for): switching one change on leaves the others as they were.

Done by numpy rather than torch, and on purpose: the work sits in the loader's background thread, where torch's thread
pool would compete with the step's own (ten times slower on a busy machine). It goes through the batch in pieces that
stay in the processor's cache, large batches on several threads.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from stillroom.data.random import key, uniform
from stillroom.data.threads import on_threads
from stillroom.recipe import Augment

__all__ = ["augment", "key", "to_float"]

FLIP, SHIFT_X, SHIFT_Y, ZOOM, ROTATE, BRIGHTNESS, CONTRAST, SATURATION, ERASE, ERASE_SIDE, ERASE_X, ERASE_Y = range(12)
GREY = 0.5
PIECE = 2**17  # values in a piece: half a megabyte of float32
THREADED = 2**21  # values in a batch that is worth several threads
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R 601, as in the decode rule

Floats = NDArray[np.float32]


def augment(images: Tensor, keys: Tensor | NDArray[np.int64], policy: Augment) -> Tensor:
    """The images as seen under their keys, float32 [B, C, H, W] in 0..1.

    In this order: flip, shift (whole pixels), zoom and rotate about the centre (bilinear), brightness, contrast about
    the mean of the untouched image, saturation (3 channels only), erase. What moves in from outside is the image
    mirrored at its edge. A policy of zeros gives images / 255, exactly.

    Args:
        images: uint8 [B, C, H, W], on the CPU.
        keys: int64 [B], from `key`.
        policy: the largest amount of each change.
    """
    stored = images.numpy()
    numbers = np.asarray(keys, dtype=np.int64)
    if numbers.shape != stored.shape[:1]:
        raise ValueError(f"{len(stored)} images need as many keys, got {numbers.shape}")
    result = np.empty(stored.shape, dtype=np.float32)
    length = max(1, PIECE // math.prod(stored.shape[1:]))

    def see(start: int) -> None:
        piece = slice(start, start + length)
        _see(stored[piece], numbers[piece], policy, out=result[piece])

    starts = range(0, len(stored), length)
    on_threads(see, starts, least=4 if stored.size >= THREADED else len(starts) or 1)
    return torch.from_numpy(result)


def to_float(images: Tensor) -> Tensor:
    """uint8 as float32 in 0..1: exactly x / 255."""
    return torch.from_numpy(np.divide(images.numpy(), np.float32(255), dtype=np.float32))


def _see(images: NDArray[np.uint8], keys: NDArray[np.int64], policy: Augment, *, out: Floats) -> None:
    """`augment` of a piece of the batch, into `out`."""
    np.divide(_moved(images, keys, policy), np.float32(255), out=out, dtype=np.float32)
    if policy.zoom or policy.rotate:
        _resample(out, keys, policy)
    if policy.brightness or policy.contrast or (policy.saturation and images.shape[1] == 3):
        _colour(out, images, keys, policy)
    if policy.erase:
        _erase(out, keys, policy.erase)


def _between(keys: NDArray[np.int64], amount: float, *, stream: int) -> Floats:
    """A number in [-amount, amount) for each key."""
    return ((2 * uniform(keys, stream=stream) - 1) * amount).astype(np.float32)


def _moved(images: NDArray[np.uint8], keys: NDArray[np.int64], policy: Augment) -> NDArray[np.uint8]:
    """Flip and shift, in whole pixels: each row and column of the result is one of the image's."""
    if not (policy.flip or policy.shift):
        return images
    height, width = images.shape[2:]
    rows = _mirrored(np.arange(height) - _pixels(keys, policy.shift, height, stream=SHIFT_Y)[:, None], height)
    columns = _mirrored(np.arange(width) - _pixels(keys, policy.shift, width, stream=SHIFT_X)[:, None], width)
    if policy.flip:
        flipped = uniform(keys, stream=FLIP) < 0.5
        columns = np.where(flipped[:, None], width - 1 - columns, columns)
    result = np.empty_like(images)
    for i, image in enumerate(images):
        # `clip` because numpy copies the output once more under `raise`; the indices are right already
        np.take(image.take(rows[i], axis=1), columns[i], axis=2, out=result[i], mode="clip")
    return result


def _pixels(keys: NDArray[np.int64], share: float, side: int, *, stream: int) -> NDArray[np.int64]:
    """A whole number of pixels in -n..n for each key, each equally likely, n = share of the side, rounded."""
    most = round(share * side)
    return np.floor(uniform(keys, stream=stream) * (2 * most + 1)).astype(np.int64) - most


def _mirrored(index: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Indices beyond 0..side-1 mirrored at the edge: -1 is 0, -2 is 1, as often as needed."""
    around = index % (2 * side)
    return np.minimum(around, 2 * side - 1 - around)


def _resample(images: Floats, keys: NDArray[np.int64], policy: Augment) -> None:
    """In place: zoom and rotate about the centre. The pixel at p shows what lay at R(-angle) p / zoom."""
    height, width = images.shape[2:]
    zoom = 1 + _between(keys, policy.zoom, stream=ZOOM)
    angles = np.radians(_between(keys, policy.rotate, stream=ROTATE).astype(np.float64)).tolist()
    # one by one through libm: numpy's vectorised sine may give another last bit at the end of an array
    cosine = (np.array([math.cos(angle) for angle in angles], dtype=np.float32) / zoom)[:, None, None]
    sine = (np.array([math.sin(angle) for angle in angles], dtype=np.float32) / zoom)[:, None, None]
    x = ((2 * np.arange(width, dtype=np.float32) + 1) / width - 1)[None, None, :]
    y = ((2 * np.arange(height, dtype=np.float32) + 1) / height - 1)[None, :, None]
    aspect = np.float32(height / width)
    grid = torch.from_numpy(np.stack([cosine * x - sine * aspect * y, sine / aspect * x + cosine * y], axis=-1))
    source = torch.from_numpy(images)
    for i in range(len(images)):  # one by one: a batch of one is the case that torch does without its threads
        one = slice(i, i + 1)
        images[one] = grid_sample(source[one], grid[one], padding_mode="reflection", align_corners=False).numpy()
    np.clip(images, 0, 1, out=images)


def _colour(images: Floats, stored: NDArray[np.uint8], keys: NDArray[np.int64], policy: Augment) -> None:
    """In place: brightness, contrast, saturation."""
    if policy.brightness:
        images += _between(keys, policy.brightness, stream=BRIGHTNESS)[:, None, None, None]
    if policy.contrast:
        factor = (1 + _between(keys, policy.contrast, stream=CONTRAST))[:, None, None, None]
        # the sum of whole numbers is exact in any order; one of floats would depend on how it is cut up
        total = stored.reshape(len(stored), -1).sum(axis=1, dtype=np.int64)
        middle = (total / (255 * math.prod(stored.shape[1:]))).astype(np.float32)[:, None, None, None]
        images -= middle
        images *= factor
        images += middle
    if policy.saturation and images.shape[1] == 3:
        factor = (1 + _between(keys, policy.saturation, stream=SATURATION))[:, None, None, None]
        red, green, blue = (images[:, i : i + 1] * np.float32(weight) for i, weight in enumerate(LUMINANCE))
        grey = red + green + blue
        images -= grey
        images *= factor
        images += grey
    np.clip(images, 0, 1, out=images)


def _erase(images: Floats, keys: NDArray[np.int64], probability: float) -> None:
    """In place: a square of 1 pixel to half the shorter side becomes grey, wholly inside the image."""
    height, width = images.shape[2:]
    side = 1 + np.floor(uniform(keys, stream=ERASE_SIDE) * max(1, min(height, width) // 2)).astype(int)
    top = np.floor(uniform(keys, stream=ERASE_Y) * (height - side + 1)).astype(int)
    left = np.floor(uniform(keys, stream=ERASE_X) * (width - side + 1)).astype(int)
    for i in np.flatnonzero(uniform(keys, stream=ERASE) < probability):
        images[i, :, top[i] : top[i] + side[i], left[i] : left[i] + side[i]] = GREY

"""How a training image changes between two looks: a pure function of (image, key, policy).

Row i of the result depends on image i, key i and the policy alone, bit for bit: not on the batch around it, nor on the
number of threads. Random numbers are hashes of (key, what for): switching one change on leaves the others as they were.

Done by numpy rather than torch, and on purpose: the work sits in the loader's background thread, where torch's thread
pool would compete with the step's own (ten times slower on a busy machine). It goes through the batch in pieces that
stay in the processor's cache, large batches on several threads.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from stillroom.config.schema import Augment
from stillroom.data.geometry import Geometry, geometry, reflect_index, symmetric_uniform
from stillroom.data.hash_rng import make_key, uniform
from stillroom.data.threads import thread_map

__all__ = ["augment", "make_key", "to_float"]

BRIGHTNESS, CONTRAST, SATURATION, ERASE, ERASE_SIDE, ERASE_X, ERASE_Y = range(5, 12)  # 0 to 4 are the geometry's
ERASED = 0.5
GREY_PADDING = 128  # the grey of 8 bits that lies around an image which is not mirrored
PIECE_VALUES = 2**17  # values in a piece: half a megabyte of float32
THREADED_VALUES = 2**21  # values in a batch that is worth several threads
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R 601, as in the decode rule

Floats = NDArray[np.float32]


def augment(
    images: Tensor,
    keys: Tensor | NDArray[np.int64],
    policy: Augment,
    *,
    padding: Literal["mirror", "grey"] = "mirror",
) -> Tensor:
    """The images as seen under their keys, float32 [B, C, H, W] in 0..1.

    In this order: flip, shift (whole pixels), zoom and rotate about the centre (bilinear), brightness, contrast about
    the mean of the untouched image, saturation (3 channels only), erase. What moves in from outside is the image
    mirrored at its edge, or grey, where a mirrored object would be one that nobody knows of. A policy of zeros gives
    images / 255, exactly.

    Args:
        images: uint8 [B, C, H, W], on the CPU.
        keys: int64 [B], from `key`.
        policy: the largest amount of each change.
        padding: what moves in from outside.
    """
    stored = images.numpy()
    numbers = np.asarray(keys, dtype=np.int64)
    if numbers.shape != stored.shape[:1]:
        raise ValueError(f"{len(stored)} images need as many keys, got {numbers.shape}")
    result = np.empty(stored.shape, dtype=np.float32)
    length = max(1, PIECE_VALUES // math.prod(stored.shape[1:]))

    def see(start: int) -> None:
        piece = slice(start, start + length)
        _see(stored[piece], numbers[piece], policy, grey=padding == "grey", out=result[piece])

    starts = range(0, len(stored), length)
    thread_map(see, starts, min_chunk=4 if stored.size >= THREADED_VALUES else len(starts) or 1)
    return torch.from_numpy(result)


def to_float(images: Tensor) -> Tensor:
    """uint8 as float32 in 0..1: exactly x / 255."""
    return torch.from_numpy(np.divide(images.numpy(), np.float32(255), dtype=np.float32))


def _see(images: NDArray[np.uint8], keys: NDArray[np.int64], policy: Augment, *, grey: bool, out: Floats) -> None:
    """`augment` of a piece of the batch, into `out`."""
    how = geometry(keys, policy, height=images.shape[2], width=images.shape[3])
    np.divide(_shifted(images, how, grey), np.float32(255), out=out, dtype=np.float32)
    if how.resamples:
        _resample(out, how, grey)
    if policy.brightness or policy.contrast or (policy.saturation and images.shape[1] == 3):
        _colour(out, images, keys, policy)
    if policy.erase:
        _erase(out, keys, policy.erase)


def _shifted(images: NDArray[np.uint8], how: Geometry, grey: bool) -> NDArray[np.uint8]:
    """Flip and shift, in whole pixels: each row and column of the result is one of the image's, or grey."""
    if not how.shifts:
        return images
    rows, columns = how.rows(), how.columns()
    result = np.empty_like(images)
    from_rows = reflect_index(rows, how.height)
    from_columns = how.unflip_columns(reflect_index(columns, how.width))
    for i, image in enumerate(images):
        # `clip` because numpy copies the output once more under `raise`; the indices are right already
        np.take(image.take(from_rows[i], axis=1), from_columns[i], axis=2, out=result[i], mode="clip")
        if grey:
            result[i][:, (rows[i] < 0) | (rows[i] >= how.height)] = GREY_PADDING
            result[i][:, :, (columns[i] < 0) | (columns[i] >= how.width)] = GREY_PADDING
    return result


def _resample(images: Floats, how: Geometry, grey: bool) -> None:
    """In place: zoom and rotate about the centre."""
    grid = how.grid()
    source = torch.from_numpy(images)
    around = GREY_PADDING / 255 if grey else 0.0  # beyond the edge torch knows zero or mirrors: so grey is made zero
    mode = "zeros" if grey else "reflection"
    for i in range(len(images)):  # one by one: a batch of one is the case that torch does without its threads
        one = slice(i, i + 1)
        inside = source[one] - around if grey else source[one]
        images[one] = grid_sample(inside, grid[one], padding_mode=mode, align_corners=False).numpy()
    if grey:
        images += np.float32(around)
    np.clip(images, 0, 1, out=images)


def _colour(images: Floats, stored: NDArray[np.uint8], keys: NDArray[np.int64], policy: Augment) -> None:
    """In place: brightness, contrast, saturation."""
    if policy.brightness:
        images += symmetric_uniform(keys, policy.brightness, stream=BRIGHTNESS)[:, None, None, None]
    if policy.contrast:
        factor = (1 + symmetric_uniform(keys, policy.contrast, stream=CONTRAST))[:, None, None, None]
        # the sum of whole numbers is exact in any order; one of floats would depend on how it is cut up
        total = stored.reshape(len(stored), -1).sum(axis=1, dtype=np.int64)
        middle = (total / (255 * math.prod(stored.shape[1:]))).astype(np.float32)[:, None, None, None]
        images -= middle
        images *= factor
        images += middle
    if policy.saturation and images.shape[1] == 3:
        factor = (1 + symmetric_uniform(keys, policy.saturation, stream=SATURATION))[:, None, None, None]
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
        images[i, :, top[i] : top[i] + side[i], left[i] : left[i] + side[i]] = ERASED

"""Augmentation of training images: a pure function of (image, key, policy).

Row i of the result depends on image i, key i and the policy only, bit for bit, and neither on the rest of the batch nor
on the number of threads. Random numbers are hashes of (key, stream), one stream per operation, so enabling one
operation does not change the draws of the others.

numpy is used instead of torch because augmentation runs in the loader's background thread, where torch's thread pool
would compete with the training step (ten times slower on a busy machine). The batch is processed in pieces that fit
into the CPU cache, large batches on several threads.
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
from stillroom.types import IntArray

__all__ = ["augment", "make_key", "to_float"]

# Streams of random numbers; 0 to 4 are used by `geometry`.
BRIGHTNESS, CONTRAST, SATURATION, ERASE, ERASE_SIDE, ERASE_X, ERASE_Y = range(5, 12)
ERASED = 0.5  # value of erased pixels
GREY_PADDING = 128  # 8-bit value of padding that is not mirrored
PIECE_VALUES = 2**17  # values per piece: half a megabyte of float32
THREADED_VALUES = 2**21  # smallest batch that is split over threads
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R 601, as in the decode rule

Floats = NDArray[np.float32]


def augment(
    images: Tensor,
    keys: Tensor | IntArray,
    policy: Augment,
    *,
    padding: Literal["mirror", "grey"] = "mirror",
) -> Tensor:
    """Augmented images, float32 [B, C, H, W] in 0..1.

    In this order: flip, shift (whole pixels), zoom and rotate about the centre (bilinear), brightness, contrast about
    the mean of the original image, saturation (3 channels only), erase. A policy of zeros gives exactly images / 255.

    Args:
        images: uint8 [B, C, H, W], on the CPU.
        keys: int64 [B], from `make_key`.
        policy: the largest amount of each operation.
        padding: what fills the area beyond the image's edge: its mirror image, or grey where a mirrored object would
            be one without a label.
    """
    stored = images.numpy()
    key_array = np.asarray(keys, dtype=np.int64)
    if key_array.shape != stored.shape[:1]:
        raise ValueError(f"{len(stored)} images need as many keys, got {key_array.shape}")
    result = np.empty(stored.shape, dtype=np.float32)
    length = max(1, PIECE_VALUES // math.prod(stored.shape[1:]))

    def augment_from(start: int) -> None:
        piece = slice(start, start + length)
        _augment_piece(stored[piece], key_array[piece], policy, grey=padding == "grey", out=result[piece])

    starts = range(0, len(stored), length)
    thread_map(augment_from, starts, min_chunk=4 if stored.size >= THREADED_VALUES else len(starts) or 1)
    return torch.from_numpy(result)


def to_float(images: Tensor) -> Tensor:
    """uint8 to float32 in 0..1, exactly x / 255."""
    return torch.from_numpy(np.divide(images.numpy(), np.float32(255), dtype=np.float32))


def _augment_piece(images: NDArray[np.uint8], keys: IntArray, policy: Augment, *, grey: bool, out: Floats) -> None:
    """`augment` for a piece of the batch, written to `out`."""
    moves = geometry(keys, policy, height=images.shape[2], width=images.shape[3])
    np.divide(_flip_and_shift(images, moves, grey), np.float32(255), out=out, dtype=np.float32)
    if moves.resamples:
        _zoom_and_rotate(out, moves, grey)
    if policy.brightness or policy.contrast or (policy.saturation and images.shape[1] == 3):
        _change_colour(out, images, keys, policy)
    if policy.erase:
        _erase(out, keys, policy.erase)


def _flip_and_shift(images: NDArray[np.uint8], moves: Geometry, grey: bool) -> NDArray[np.uint8]:
    """Whole-pixel moves: each row and column of the result is copied from the image, or grey."""
    if not moves.shifts:
        return images
    rows, columns = moves.rows(), moves.columns()
    result = np.empty_like(images)
    from_rows = reflect_index(rows, moves.height)
    from_columns = moves.unflip_columns(reflect_index(columns, moves.width))
    for i, image in enumerate(images):
        # All indices are in range. mode="clip" saves the extra copy of the output that mode="raise" makes.
        np.take(image.take(from_rows[i], axis=1), from_columns[i], axis=2, out=result[i], mode="clip")
        if grey:
            result[i][:, (rows[i] < 0) | (rows[i] >= moves.height)] = GREY_PADDING
            result[i][:, :, (columns[i] < 0) | (columns[i] >= moves.width)] = GREY_PADDING
    return result


def _zoom_and_rotate(images: Floats, moves: Geometry, grey: bool) -> None:
    """In place, about the centre."""
    grid = moves.grid()
    source = torch.from_numpy(images)
    offset = GREY_PADDING / 255 if grey else 0.0  # grid_sample pads with zeros, so grey is shifted to zero and back
    mode = "zeros" if grey else "reflection"
    for i in range(len(images)):  # one image at a time: a batch of one does not use torch's thread pool
        one = slice(i, i + 1)
        shifted = source[one] - offset if grey else source[one]
        images[one] = grid_sample(shifted, grid[one], padding_mode=mode, align_corners=False).numpy()
    if grey:
        images += np.float32(offset)
    np.clip(images, 0, 1, out=images)


def _change_colour(images: Floats, stored: NDArray[np.uint8], keys: IntArray, policy: Augment) -> None:
    """Brightness, contrast and saturation, in place; `stored` are the original pixels."""
    if policy.brightness:
        images += symmetric_uniform(keys, policy.brightness, stream=BRIGHTNESS)[:, None, None, None]
    if policy.contrast:
        factor = (1 + symmetric_uniform(keys, policy.contrast, stream=CONTRAST))[:, None, None, None]
        # An integer sum is exact in any order; a float sum would depend on how numpy splits it.
        total = stored.reshape(len(stored), -1).sum(axis=1, dtype=np.int64)
        mean = (total / (255 * math.prod(stored.shape[1:]))).astype(np.float32)[:, None, None, None]
        images -= mean
        images *= factor
        images += mean
    if policy.saturation and images.shape[1] == 3:
        factor = (1 + symmetric_uniform(keys, policy.saturation, stream=SATURATION))[:, None, None, None]
        red, green, blue = (images[:, i : i + 1] * np.float32(weight) for i, weight in enumerate(LUMINANCE))
        grey = red + green + blue
        images -= grey
        images *= factor
        images += grey
    np.clip(images, 0, 1, out=images)


def _erase(images: Floats, keys: IntArray, probability: float) -> None:
    """Fill a square with grey, in place: its side is 1 pixel to half the shorter side, and it lies inside the image."""
    height, width = images.shape[2:]
    side = 1 + np.floor(uniform(keys, stream=ERASE_SIDE) * max(1, min(height, width) // 2)).astype(int)
    top = np.floor(uniform(keys, stream=ERASE_Y) * (height - side + 1)).astype(int)
    left = np.floor(uniform(keys, stream=ERASE_X) * (width - side + 1)).astype(int)
    for i in np.flatnonzero(uniform(keys, stream=ERASE) < probability):
        images[i, :, top[i] : top[i] + side[i], left[i] : left[i] + side[i]] = ERASED

"""Arithmetic on plain lists and whole tensors, for tests that write a formula down as loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


def softmax(row: Sequence[float], temperature: float = 1.0) -> list[float]:
    """The probabilities of one row of logits."""
    top = max(row)
    powers = [math.exp((z - top) / temperature) for z in row]
    return [power / sum(powers) for power in powers]


def pixels(maps: Tensor) -> list[list[float]]:
    """[B, K, H, W] as one row of K numbers a pixel, image by image and line by line."""
    images, _, height, width = maps.shape
    return [maps[b, :, y, x].tolist() for b in range(images) for y in range(height) for x in range(width)]


def halved(maps: Tensor) -> Tensor:
    """[B, C, 2 h, 2 w] -> [B, C, h, w]: the mean of every four places."""
    return (maps[:, :, ::2, ::2] + maps[:, :, 1::2, ::2] + maps[:, :, ::2, 1::2] + maps[:, :, 1::2, 1::2]) / 4

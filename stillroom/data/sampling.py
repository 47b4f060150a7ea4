"""Evenly spaced images of a split, and the mean and standard deviation of its pixels."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from stillroom.data.dataset import Split
from stillroom.data.hash_rng import evenly_spaced

STATISTICS = 2048  # training images used for the pixel statistics


@dataclasses.dataclass(frozen=True)
class PixelStatistics:
    """Mean and standard deviation of the training pixels, one number per channel, 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


PLACEHOLDER_STATISTICS = PixelStatistics((0.5,), (0.25,))
"""For networks that are built to be inspected and never see an image."""


def pixel_statistics(split: Split) -> PixelStatistics:
    """Statistics of at most `STATISTICS` evenly spaced images of a split."""
    images = sample_images(split, STATISTICS).double()
    mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3)).clamp_min(1e-3)
    return PixelStatistics(tuple(mean.tolist()), tuple(std.tolist()))


def sample_images(split: Split, count: int) -> Tensor:
    """`count` evenly spaced images of a split, or all if it has fewer: [n, C, H, W] in 0..1."""
    return split.images(evenly_spaced(len(split), count)).float() / 255

"""Features as a loss wants them: a map, tokens or a vector, whatever the network gave."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from stillroom.types import at_least_float32


def to_map(feature: Tensor) -> Tensor:
    """[B, C, h, w] as it is; tokens [B, N, D] as [B, D, n, n]; a vector [B, D] as [B, D, 1, 1].

    Tokens stand in reading order behind a prefix (class token, distillation token, registers), which is left out: n is
    the largest with n^2 <= N. A prefix of more than 2 n tokens would be misread.
    """
    if feature.ndim == 3:
        side = math.isqrt(feature.shape[1])
        patches = feature[:, feature.shape[1] - side * side :]
        feature = patches.transpose(1, 2).unflatten(2, (side, side))
    elif feature.ndim == 2:
        feature = feature[:, :, None, None]
    return at_least_float32(feature)


def to_tokens(feature: Tensor) -> Tensor:
    """Patch tokens [B, N, D] of anything `to_map` takes, the prefix left out."""
    return to_map(feature).flatten(2).transpose(1, 2)


def to_vector(feature: Tensor) -> Tensor:
    """[B, D]: a vector as it is, a map or patch tokens averaged over their places."""
    return at_least_float32(feature) if feature.ndim == 2 else to_map(feature).mean((2, 3))


def to_grid(feature: Tensor, like: Tensor) -> Tensor:
    """A map [B, C, h, w] with the height and width of the map `like`: averaged where it shrinks, else bilinear."""
    size = (like.shape[2], like.shape[3])
    if feature.shape[2:] == like.shape[2:]:
        return feature
    if feature.shape[2] >= size[0] and feature.shape[3] >= size[1]:
        return F.adaptive_avg_pool2d(feature, size)
    return F.interpolate(feature, size, mode="bilinear", align_corners=False)

"""Conversion of a network's features: to a map, to tokens or to a vector, whichever they are."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from stillroom.types import at_least_float32


def to_map(feature: Tensor) -> Tensor:
    """[B, C, h, w] is unchanged; tokens [B, N, D] become [B, D, n, n]; a vector [B, D] becomes [B, D, 1, 1].

    Patch tokens are expected in row-major order after the prefix tokens (class token, distillation token, registers),
    which are left out: n is the largest integer with n^2 <= N. A prefix of more than 2 n tokens would be taken for
    patches.
    """
    if feature.ndim == 3:
        side = math.isqrt(feature.shape[1])
        patches = feature[:, feature.shape[1] - side * side :]
        feature = patches.transpose(1, 2).unflatten(2, (side, side))
    elif feature.ndim == 2:
        feature = feature[:, :, None, None]
    return at_least_float32(feature)


def to_tokens(feature: Tensor) -> Tensor:
    """Patch tokens [B, N, D] of any feature that `to_map` takes, without prefix tokens."""
    return to_map(feature).flatten(2).transpose(1, 2)


def to_vector(feature: Tensor) -> Tensor:
    """[B, D]: a vector is unchanged; a map or patch tokens are averaged over positions."""
    return at_least_float32(feature) if feature.ndim == 2 else to_map(feature).mean((2, 3))


def to_grid(feature: Tensor, like: Tensor) -> Tensor:
    """A map [B, C, h, w] resized to the height and width of the map `like`.

    By average pooling if neither side grows, else by bilinear interpolation.
    """
    size = (like.shape[2], like.shape[3])
    if feature.shape[2:] == like.shape[2:]:
        return feature
    if feature.shape[2] >= size[0] and feature.shape[3] >= size[1]:
        return F.adaptive_avg_pool2d(feature, size)
    return F.interpolate(feature, size, mode="bilinear", align_corners=False)

"""mixup and cutmix as pure functions of (key, policy, split).

mixup: Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018, https://arxiv.org/abs/1710.09412.
cutmix: Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features, ICCV 2019,
https://arxiv.org/abs/1905.04899.

    mixup:   x = s a + (1 - s) b                          s = max(l, 1 - l), l from Beta(alpha, alpha)
    cutmix:  x = a, but b inside a box of H W (1 - s)     s as above, then the proportion of a's pixels that remain

Differs: the authors mix a batch with a permutation of itself, with one l for the whole batch. Here the partner b, the
proportion s and the box are hashes of a's own key: row i depends on key i only, not on the rest of the batch, so that
the teacher's output for a mixed image can be cached under its key.

Folding l to at least 0.5 makes a's class the larger part of its image; methods that treat the true class separately
read that class. For mixup the distribution is unchanged: a with b at l is b with a at 1 - l, and each order is equally
likely. For cutmix a box never covers more than half of the image, while the authors' may.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betaincinv
from torch import Tensor

from stillroom.config.schema import Augment
from stillroom.data.hash_rng import uniform
from stillroom.types import IntArray

PARTNER, KIND, SHARE, BOX_Y, BOX_X = range(13, 18)  # streams; 0 to 12 are used by `augment` and the loader


def mixing_partners(keys: IntArray, length: int) -> IntArray:
    """The row of the split that each image is mixed with, [B], uniform over all rows, the image's own included.

    Args:
        keys: int64 [B].
        length: rows of the split.
    """
    return np.floor(uniform(keys, stream=PARTNER) * length).astype(np.int64)


def mix_images(others: Tensor, images: Tensor, keys: IntArray, policy: Augment) -> Tensor:
    """Mix partners into images, in place.

    If the policy has both mixup and cutmix, a hash of the key chooses between them with equal probability.

    Args:
        others: float32 [B, C, H, W] in 0..1, the partners; overwritten.
        images: float32 [B, C, H, W] in 0..1, the augmented images; mixed in place, in 0..1 as before.
        keys: int64 [B] of the images.
        policy: `mixup` and `cutmix`, not both 0.

    Returns:
        The proportion of each result that is its own image, float32 [B] in 0.5..1. A cutmix box is clipped at the
        image's edge, as the authors' is, so it may be smaller than drawn; its proportion is counted in pixels.
    """
    is_cutmix, share = _draw(keys, policy)
    height, width = images.shape[2:]
    top, bottom = _box_range(keys, share, height, stream=BOX_Y)
    left, right = _box_range(keys, share, width, stream=BOX_X)
    remaining = 1 - (bottom - top) * (right - left) / (height * width)
    share = np.where(is_cutmix, remaining, share).astype(np.float32)
    for i, (image, other) in enumerate(zip(images.numpy(), others.numpy(), strict=True)):
        if is_cutmix[i]:
            box = (slice(None), slice(top[i], bottom[i]), slice(left[i], right[i]))
            image[box] = other[box]
        else:
            image *= share[i]
            other *= 1 - share[i]
            image += other
    return torch.from_numpy(share)


def _draw(keys: IntArray, policy: Augment) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """[B] whether it is cutmix, and [B] the proportion before clipping, from the inverse CDF of Beta."""
    probability = bool(policy.cutmix) / (bool(policy.cutmix) + bool(policy.mixup))
    is_cutmix = uniform(keys, stream=KIND) < probability
    alpha = np.where(is_cutmix, policy.cutmix, policy.mixup)
    share = betaincinv(alpha, alpha, uniform(keys, stream=SHARE))
    return is_cutmix, np.maximum(share, 1 - share)


def _box_range(keys: IntArray, share: NDArray[np.float64], side: int, *, stream: int) -> tuple[IntArray, IntArray]:
    """First pixel [B] and end [B] (exclusive) of a box along one axis: uniform centre, clipped to the image."""
    half = np.floor(side * np.sqrt(1 - share)).astype(np.int64) // 2
    centre = np.floor(uniform(keys, stream=stream) * side).astype(np.int64)
    return np.clip(centre - half, 0, side), np.clip(centre + half, 0, side)

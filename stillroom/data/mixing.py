"""Two images made one: mixup and cutmix, pure functions of (key, policy, split).

mixup: Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018, https://arxiv.org/abs/1710.09412.
cutmix: Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features, ICCV 2019,
https://arxiv.org/abs/1905.04899.

    mixup:   x = s a + (1 - s) b                          s = max(l, 1 - l), l from Beta(alpha, alpha)
    cutmix:  x = a, but b inside a box of H W (1 - s)     likewise; s is then the share of a's pixels that is left

The authors mix a batch with itself in another order, with one l for all. Here the partner b, the share s and the box
are hashes of a's own key: row i depends on key i alone, not on the batch around it, so that what a teacher says of a
mixed image can be remembered under its key.

Folding l to at least a half keeps a's class the greater part of its image, and methods that treat the true class apart
read that one. With mixup nothing is lost: a with b at l is b with a at 1 - l, and each is as often the first. With
cutmix a box never covers more than half; the authors' may, so that a is left as the frame of b.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betaincinv
from torch import Tensor

from stillroom.config.schema import Augment
from stillroom.data.hash_rng import uniform

PARTNER, KIND, SHARE, BOX_Y, BOX_X = range(13, 18)  # 0 to 12 are `augment`'s and the loader's

Numbers = NDArray[np.int64]


def mixing_partners(keys: Numbers, length: int) -> Numbers:
    """The row of the split that each image is mixed with, [B]; each of `length` equally likely, its own too.

    Args:
        keys: int64 [B].
        length: rows of the split.
    """
    return np.floor(uniform(keys, stream=PARTNER) * length).astype(np.int64)


def mix_images(others: Tensor, images: Tensor, keys: Numbers, policy: Augment) -> Tensor:
    """Mixes partners into images, in place.

    With both kinds on, a hash of the key decides which of the two it is, each half of the time.

    Args:
        others: float32 [B, C, H, W] in 0..1, the partners; worthless afterwards.
        images: the same of the images, as seen under their keys; mixed afterwards, in 0..1 as before.
        keys: int64 [B] of the images.
        policy: `mixup` and `cutmix`, not both 0.

    Returns:
        The share of each image that is still its own, float32 [B] in 0.5..1. A box is cut at the image's edge, as the
        authors' is, so that it may be smaller than was drawn; its share is counted in pixels.
    """
    boxed, share = _drawn(keys, policy)
    height, width = images.shape[2:]
    top, bottom = _span(keys, share, height, stream=BOX_Y)
    left, right = _span(keys, share, width, stream=BOX_X)
    exact = 1 - (bottom - top) * (right - left) / (height * width)
    share = np.where(boxed, exact, share).astype(np.float32)
    for i, (image, other) in enumerate(zip(images.numpy(), others.numpy(), strict=True)):
        if boxed[i]:
            box = (slice(None), slice(top[i], bottom[i]), slice(left[i], right[i]))
            image[box] = other[box]
        else:
            image *= share[i]
            other *= 1 - share[i]
            image += other
    return torch.from_numpy(share)


def _drawn(keys: Numbers, policy: Augment) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """[B] whether it is cutmix, and [B] the share before its box is cut: Beta by its inverse distribution function."""
    chance = bool(policy.cutmix) / (bool(policy.cutmix) + bool(policy.mixup))
    boxed = uniform(keys, stream=KIND) < chance
    alpha = np.where(boxed, policy.cutmix, policy.mixup)
    share = betaincinv(alpha, alpha, uniform(keys, stream=SHARE))
    return boxed, np.maximum(share, 1 - share)


def _span(keys: Numbers, share: NDArray[np.float64], side: int, *, stream: int) -> tuple[Numbers, Numbers]:
    """First pixel [B], and the one behind the last [B], of boxes with their middle anywhere, cut at the edge."""
    half = np.floor(side * np.sqrt(1 - share)).astype(np.int64) // 2
    middle = np.floor(uniform(keys, stream=stream) * side).astype(np.int64)
    return np.clip(middle - half, 0, side), np.clip(middle + half, 0, side)

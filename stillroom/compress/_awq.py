"""Activation-aware scaling of weights before they are rounded. Lin et al. 2024, https://arxiv.org/abs/2306.00978.

Few input channels carry most of what a layer computes. Their weights, multiplied by s > 1, are rounded with a relative
error 1/s as large as long as the largest weight of their group stays the same, and dividing what is read by s gives the
same product.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stillroom.models.surgery._rounding import groupwise

POWERS = 20


def scale_of(size: Tensor, power: float) -> Tensor:
    """For size [D] = mean|x|: s = clamp(size^power, 1e-4) / sqrt(max * min); 1 everywhere for power 0."""
    scale = size.pow(power).clamp(min=1e-4)
    return scale / (scale.max() * scale.min()).sqrt()


@torch.no_grad()
def best_scale(weight: Tensor, rows: Tensor, size: Tensor, *, bits: int, group: int) -> tuple[Tensor, float, float]:
    """The scale [D] whose rounded weights change the layer's output least, that change, and what plain rounding costs.

    Powers 0, 1/20 .. 19/20 are tried (the authors' `auto_scale.py`,
    https://github.com/mit-han-lab/llm-awq/blob/main/awq/quantize/auto_scale.py); 0 is plain rounding, so the result is
    never worse than that. Both errors are mean((X W^T - (X / s) q(s W)^T)^2).

    Differs: they search one scale for all layers that read the same thing, and fold it into what comes before. Here
    each layer has its own, and divides by it.

    Args:
        weight: [N, D].
        rows: X, [n, D].
        size: mean|x| over more rows than these, [D].
        bits: of the grid.
        group: inputs that share a scale of the grid.
    """
    weight, expected = weight.float(), rows @ weight.float().T
    errors, scales = [], [scale_of(size, step / POWERS) for step in range(POWERS)]
    for scale in scales:
        said = rows @ (groupwise(weight * scale, bits, group) / scale).T
        errors.append(float((said - expected).square().mean().nan_to_num(float("inf"))))
    best = min(range(POWERS), key=errors.__getitem__)
    return scales[best], errors[best], errors[0]

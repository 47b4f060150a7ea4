"""Activation-aware scaling of weights before rounding (AWQ). Lin et al. 2024, https://arxiv.org/abs/2306.00978.

A few input channels contribute most to a layer's output. Their weights are multiplied by s > 1 before rounding, and the
inputs are divided by s, which gives the same product. The relative rounding error of these weights is then smaller by
1/s, as long as the largest weight of their group stays the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stillroom.models.surgery._rounding import groupwise

POWERS = 20


def scale_of(mean_abs: Tensor, power: float) -> Tensor:
    """S = clamp(mean_abs^power, 1e-4) / sqrt(max * min), for mean_abs [D] = mean|x|; 1 everywhere for power 0."""
    scale = mean_abs.pow(power).clamp(min=1e-4)
    return scale / (scale.max() * scale.min()).sqrt()


@torch.no_grad()
def best_scale(weight: Tensor, rows: Tensor, mean_abs: Tensor, *, bits: int, group: int) -> tuple[Tensor, float, float]:
    """The scale [D] that minimises the change of the layer's output, that change, and the change without scaling.

    The candidates are the powers 0, 1/20 .. 19/20 (the authors' `auto_scale.py`,
    https://github.com/mit-han-lab/llm-awq/blob/main/awq/quantize/auto_scale.py); 0 is plain rounding, so the result is
    never worse than that. Both errors are mean((X W^T - (X / s) q(s W)^T)^2).

    Differs: the authors search one scale for all layers with the same input, and merge it into the layer before. Here
    each layer has its own scale, and divides by it.

    Args:
        weight: [N, D].
        rows: X, [n, D].
        mean_abs: mean|x| over more rows than these, [D].
        bits: of the quantisation grid.
        group: inputs that share a scale of the grid.
    """
    weight, expected = weight.float(), rows @ weight.float().T
    errors, scales = [], [scale_of(mean_abs, step / POWERS) for step in range(POWERS)]
    for scale in scales:
        output = rows @ (groupwise(weight * scale, bits, group) / scale).T
        errors.append(float((output - expected).square().mean().nan_to_num(float("inf"))))
    best = min(range(POWERS), key=errors.__getitem__)
    return scales[best], errors[best], errors[0]

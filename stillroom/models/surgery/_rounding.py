"""Rounding to grids of a few bits, with a gradient.

    q(x) = scale * (clamp(round(x / scale) + zero, low, high) - zero)

Weights have symmetric grids: zero lies in the middle, so a product of integers needs no correction, and a grid that
fits a channel still fits after a batch norm is folded into it, whatever the factor. What layers read has one grid for
all of it. Nagel et al. 2021, https://arxiv.org/abs/2106.08295, section 2.

Two kinds of weight grids, because runtimes have two. Integer kernels share a scale over an output channel. Kernels that
compute in floats on packed weights share one over a group of inputs, and use every one of the 2^bits levels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.types import at_least_float32


def fake_quantize(x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
    """q(x) as above; halves go to the even neighbour.

    The gradient in x is 1 where x / scale + zero lies in low..high, and 0 elsewhere (the straight-through estimator of
    Bengio et al. 2013, https://arxiv.org/abs/1308.3432). With it the gradient in `scale` is that of LSQ: round(v) - v
    inside, with v = x / scale, and low - zero or high - zero outside. Infinite values go to the ends, NaN stays NaN.

    Args:
        x: any shape, floating point.
        scale: what one level is worth, above 0; of x's shape, or broadcast to it.
        zero: the level that stands for 0.0, a whole number.
        low: the lowest level.
        high: the highest.
    """
    return scale * _nearest(torch.clamp(x / scale, low - zero, high - zero))


def channelwise(weight: Tensor, bits: int) -> Tensor:
    """Weights [C', ...] on a symmetric grid for each of C' output channels; a gradient of 1 everywhere.

    Levels -(2^(bits-1) - 1) .. 2^(bits-1) - 1, scale = max|w| / (2^(bits-1) - 1), so nothing lies outside. Doing it
    again changes nothing. With 8 bits this is what onnxruntime, OpenVINO and XNNPACK do for int8 weights with
    a scale for each channel, so they find the same integers in weights that lie on this grid.
    """
    top = 2 ** (bits - 1) - 1
    values = at_least_float32(weight)
    scale = _usable(values.detach().abs().amax(tuple(range(1, weight.ndim)), keepdim=True) / top)
    return (scale * _nearest(values / scale)).to(weight.dtype)


def groupwise(weight: Tensor, bits: int, group: int) -> Tensor:
    """Weights [N, D] on a grid for each `group` of input values, counted from the first; the last may be shorter.

    Levels -2^(bits-1) .. 2^(bits-1) - 1. The value of largest size, w*, is the lowest level whatever its sign: scale =
    -w* / 2^(bits-1), which may be below 0. So says onnxruntime's block-wise quantiser (`range2scale` in
    https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/mlas/lib/q4_dq.cpp), so `MatMulNBits` finds the
    same integers in weights that lie on this grid. Rounding up costs at most half a level, but w* itself is exact; its
    counterpart -w* would be one level too far, and is moved by one.
    """
    half = 2 ** (bits - 1)
    values = F.pad(at_least_float32(weight), (0, -weight.shape[1] % group)).unflatten(1, (-1, group))
    low, high = values.detach().amin(2, keepdim=True), values.detach().amax(2, keepdim=True)
    scale = _usable(torch.where(high > -low, high, low) / -half)
    found = fake_quantize(values, scale, scale.new_zeros(()), -half, half - 1)
    return found.flatten(1)[:, : weight.shape[1]].to(weight.dtype)


def scale_and_zero(low: Tensor, high: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(scale, zero) of levels 0 .. 2^bits - 1 that reach from `low` to `high`, and always hold 0.0 itself."""
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = _usable((high - low) / (2**bits - 1))
    return scale, torch.round(-low / scale)


def _nearest(steps: Tensor) -> Tensor:
    """Whole numbers, with the gradient of the numbers themselves."""
    return steps + (steps.round() - steps).detach()


def _usable(scale: Tensor) -> Tensor:
    """1 where there is nothing to scale: all values are 0, or so small that a quotient would not be a number."""
    return torch.where(scale.abs() < torch.finfo(scale.dtype).tiny, 1.0, scale)

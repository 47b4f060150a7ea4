"""Layers that round their weights, and what they read, while they are trained.

    {"kind": "rounded", "bits": 8, "group": 0, "activations": 8, "ranges": "minmax",
     "layers": ["conv1", ...], "exact": ["conv1"], "float": ["fc"]}

bits, group, activations and float: as in `grid`. ranges: "minmax" or "learned", see `Rounding`. layers: names of those
that round. exact: those of them that read what must not be rounded: pixels have eight bits and no more.

A layer keeps its class, as a subclass of it, and its weights keep their names and their values in floats; what is
rounded is what its own code reads as `self.weight`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from stillroom.distributed.collectives import gather_rows
from stillroom.models.surgery._rounding import channelwise, fake_quantize, groupwise, scale_and_zero
from stillroom.types import at_least_float32

MOMENTUM = 0.01
"""Share of the newest batch in a moving range."""


class Rounding(nn.Module):
    """How a layer rounds: weights by their own largest values, what it reads by a range.

    A range moves with the smallest and largest value of every training batch ("minmax"), or its step is learned
    by gradient ("learned": Esser et al. 2020, https://arxiv.org/abs/1902.08153, with the paper's gradient scale
    1 / sqrt(N Q), N being the values that a layer reads of an image and Q the highest level). In evaluation both stand
    still. A value that is not finite moves no range.

    Differs: the paper learns the weights' steps too. Here weights keep the grid of their largest value, which is what
    runtimes find for themselves; and a learned range may lie on both sides of 0, where it lies being settled once.

    Args:
        bits: of weights, 2..8.
        group: inputs that share a scale; 0: all of an output channel.
        activations: bits of what is read, 2..8; 0 leaves it alone.
        ranges: "minmax" or "learned".

    Attributes:
        active: whether anything is rounded; not part of the state.
    """

    low: Tensor
    high: Tensor
    zero: Tensor

    def __init__(self, *, bits: int, group: int, activations: int, ranges: str):
        super().__init__()
        if ranges not in ("minmax", "learned") or not 2 <= bits <= 8 or activations not in (0, *range(2, 9)):
            raise ValueError(f"no rounding has {ranges} ranges, {bits} bits and {activations} for activations")
        self.bits, self.group, self.activations, self.ranges = bits, group, activations, ranges
        self.active = True
        if activations and ranges == "minmax":
            self.register_buffer("low", torch.tensor(0.0))
            self.register_buffer("high", torch.tensor(0.0))
        elif activations:
            self.step = nn.Parameter(torch.tensor(1.0))
            self.register_buffer("zero", torch.tensor(0.0))

    def begin(self, low: float, high: float, size: float) -> None:
        """Set the range from what was seen: the smallest value, the largest, and the mean of their sizes.

        A learned step begins as in the paper, 2 mean|x| / sqrt(Q), but no wider than reaches what was seen.
        """
        if not self.activations:
            return
        if self.ranges == "minmax":
            self.low.fill_(low)
            self.high.fill_(high)
            return
        scale, zero = scale_and_zero(torch.tensor(low), torch.tensor(high), self.activations)
        top = max(float(zero), 2**self.activations - 1 - float(zero))
        with torch.no_grad():
            self.step.fill_(min(float(scale), 2 * size / top**0.5) or float(scale))
        self.zero.copy_(zero)

    def weights(self, weight: Tensor) -> Tensor:
        """What the layer computes with."""
        if not self.active:
            return weight
        return groupwise(weight, self.bits, self.group) if self.group else channelwise(weight, self.bits)

    def forward(self, x: Tensor) -> Tensor:
        """What the layer reads, of any shape, rounded; computed in float32 at least."""
        if not self.activations or not self.active:
            return x
        values, levels = at_least_float32(x), 2**self.activations - 1
        if self.ranges == "minmax":
            if self.training:
                self._follow(values.detach())
            scale, zero = scale_and_zero(self.low, self.high, self.activations)
        else:
            top = torch.maximum(self.zero, levels - self.zero)
            share = 1 / (max(1, values.numel() // max(1, len(values))) * top).sqrt()
            step = self.step * share + (self.step * (1 - share)).detach()
            scale, zero = step.abs().clamp(min=torch.finfo(step.dtype).tiny), self.zero
        return fake_quantize(values, scale, zero, 0, levels).to(x.dtype)

    def _follow(self, values: Tensor) -> None:
        if not values.numel():
            return
        seen = gather_rows(torch.stack(values.aminmax())[None])  # of the whole batch, however many processes share it
        for bound, end in ((self.low, seen[:, 0].amin()), (self.high, seen[:, 1].amax())):
            bound.add_(torch.where(end.isfinite(), MOMENTUM * (end - bound), 0.0))


class RoundedLayer(nn.Module):
    """What a rounding layer's class puts before its own: `weight` gives the rounded weights."""

    plain: type[nn.Module]
    rounding: Rounding

    @property
    def weight(self) -> Tensor:
        """What the layer computes with; the parameter of this name holds the floats behind it."""
        return self.rounding.weights(self._parameters["weight"])  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """What the layer says to a rounded x."""
        return super().forward(self.rounding(x))


def apply(module: nn.Module, edit: Mapping[str, Any]) -> None:
    """Make the named layers round."""
    exact, common = set(edit["exact"]), {key: edit[key] for key in ("bits", "group", "ranges")}
    for name in edit["layers"]:
        layer = module.get_submodule(name)
        if layer._parameters.get("weight") is None or isinstance(layer, RoundedLayer):
            raise ValueError(f"{name} has no plain weights to round")
        rounding = Rounding(activations=0 if name in exact else edit["activations"], **common)
        layer.rounding = rounding.to(layer._parameters["weight"].device).train(layer.training)  # type: ignore[union-attr]
        layer.__class__ = _rounding(type(layer))  # type: ignore[arg-type]


def bake_rounding(module: nn.Module) -> None:
    """Leave plain layers whose weights are what the rounding ones computed with."""
    for layer in [part for part in module.modules() if isinstance(part, RoundedLayer)]:
        with torch.no_grad():
            layer._parameters["weight"].copy_(layer.weight)  # type: ignore[union-attr]
        layer.__class__ = layer.plain  # type: ignore[assignment]
        del layer.rounding


@cache
def _rounding(plain: type[nn.Module]) -> type[nn.Module]:
    return type(f"Rounding{plain.__name__}", (RoundedLayer, plain), {"plain": plain})

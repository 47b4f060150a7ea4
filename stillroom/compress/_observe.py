"""Which layers can be rounded, and what they read: found by watching a network at work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from stillroom.models.network import Network
from stillroom.models.surgery.rounded import RoundedLayer
from stillroom.models.surgery.scaled import ScaledLinear

PART = 32
"""Images at a time."""

ROWS = 512
"""Inputs of a linear layer that are kept, evenly spread over what it read."""

PLAIN = {kind.forward for kind in (nn.Conv2d, nn.Linear, Conv2dSame, ScaledLinear)}
"""Code that multiplies what it reads by `weight` and nothing else. Weight-standardised convolutions are others'."""


@dataclass
class Seen:
    """What a layer read.

    Attributes:
        low: the smallest value.
        high: the largest.
        pixels: whether it is a convolution that reads what the very first layer reads.
        rows: of a linear layer: inputs [n, D], n about `ROWS`.
    """

    pixels: bool
    low: float = 0.0
    high: float = 0.0
    rows: list[Tensor] = field(default_factory=list)
    _size: Tensor | None = None  # [D] of linear layers, [1] of others: the sum of |x|
    _count: int = 0

    def add(self, x: Tensor, keep: int) -> None:
        """One more input; `keep` rows of it."""
        values = x.detach().float()
        low, high = values.aminmax()
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
        flat = values.flatten(0, -2) if keep else values.reshape(-1, 1)
        size = flat.abs().double().sum(0)
        self._size, self._count = size if self._size is None else self._size + size, self._count + len(flat)
        if keep:
            self.rows.append(flat[:: max(1, len(flat) // keep)].clone())

    @property
    def size(self) -> Tensor:
        """mean|x| for each input value of a linear layer, [D] float32; for all of a convolution's together, [1]."""
        assert self._size is not None
        return (self._size / max(1, self._count)).float()


def roundable(layer: nn.Module) -> bool:
    """Whether a layer's code multiplies what it reads by its weights, which are plain, and does nothing else."""
    plain = type(layer).forward in PLAIN and not isinstance(layer, RoundedLayer)
    return plain and isinstance(layer._parameters.get("weight"), Tensor)


@torch.no_grad()
def observe(network: Network, images: Tensor) -> dict[str, Seen]:
    """Name -> what it read, for every layer that can be rounded and runs, in the order they run in.

    A layer whose weights others read without calling it, as some attention does with its projections, is not found.

    Args:
        network: in evaluation mode, on the CPU.
        images: [n, C, H, W] in 0..1.
    """
    seen: dict[str, Seen] = {}
    parts = images.split(PART)
    with _watched(network.module, seen, ROWS // len(parts) + 1):
        for part in parts:
            network(part)
    return seen


@contextmanager
def _watched(module: nn.Module, seen: dict[str, Seen], keep: int) -> Iterator[None]:
    pixels: list[Tensor] = []  # what the first layer of this pass read

    def begin(*_: Any) -> None:
        pixels.clear()

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
            x, linear = given[0], isinstance(layer, nn.Linear)
            if not pixels:
                pixels.append(x)
            if roundable(layer):
                found = seen.setdefault(name, Seen(pixels=x is pixels[0] and not linear))
                found.add(x, keep if linear else 0)

        return hook

    layers = [(name, part) for name, part in module.named_modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers]
    hooks.append(module.register_forward_pre_hook(begin))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

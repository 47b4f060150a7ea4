"""Statistics of the inputs of layers that can be quantised, collected by hooks while the network runs."""

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
"""Images per batch."""

ROWS = 512
"""Number of inputs of a linear layer that are kept, evenly spaced."""

PLAIN = {kind.forward for kind in (nn.Conv2d, nn.Linear, Conv2dSame, ScaledLinear)}
"""Forward functions that multiply the input by `weight` and do nothing else, unlike weight-standardised convolutions.
"""


@dataclass
class InputStats:
    """The inputs of one layer.

    Attributes:
        low: the smallest value.
        high: the largest value.
        pixels: whether it is a convolution with the same input as the first layer.
        rows: of a linear layer: inputs [n, D], n about `ROWS`.
    """

    pixels: bool
    low: float = 0.0
    high: float = 0.0
    rows: list[Tensor] = field(default_factory=list)
    _abs_sum: Tensor | None = None  # the sum of |x|: [D] for linear layers, [1] for others
    _count: int = 0

    def add(self, x: Tensor, keep: int) -> None:
        """Add one input, and keep `keep` of its rows."""
        values = x.detach().float()
        low, high = values.aminmax()
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
        flat = values.flatten(0, -2) if keep else values.reshape(-1, 1)
        total = flat.abs().double().sum(0)
        self._abs_sum, self._count = total if self._abs_sum is None else self._abs_sum + total, self._count + len(flat)
        if keep:
            self.rows.append(flat[:: max(1, len(flat) // keep)].clone())

    @property
    def mean_abs(self) -> Tensor:
        """mean|x| of each input channel of a linear layer, [D] float32; of a convolution over all channels, [1]."""
        assert self._abs_sum is not None
        return (self._abs_sum / max(1, self._count)).float()


def can_quantize(layer: nn.Module) -> bool:
    """Whether a layer's forward only multiplies its input by its weights, and these are a plain tensor."""
    plain = type(layer).forward in PLAIN and not isinstance(layer, RoundedLayer)
    return plain and isinstance(layer._parameters.get("weight"), Tensor)


@torch.no_grad()
def collect_input_stats(network: Network, images: Tensor) -> dict[str, InputStats]:
    """Name -> statistics, for each layer that can be quantised and runs, in the order in which they run.

    Layers whose weights are used without calling the layer, as in some attention modules, are not found.

    Args:
        network: in evaluation mode, on the CPU.
        images: [n, C, H, W] in 0..1.
    """
    stats: dict[str, InputStats] = {}
    parts = images.split(PART)
    with _collecting(network.module, stats, ROWS // len(parts) + 1):
        for part in parts:
            network(part)
    return stats


@contextmanager
def _collecting(module: nn.Module, stats: dict[str, InputStats], keep: int) -> Iterator[None]:
    first: list[Tensor] = []  # the input of the first layer in this forward pass

    def reset(*_: Any) -> None:
        first.clear()

    def collect(name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x, linear = inputs[0], isinstance(layer, nn.Linear)
            if not first:
                first.append(x)
            if can_quantize(layer):
                own = stats.setdefault(name, InputStats(pixels=x is first[0] and not linear))
                own.add(x, keep if linear else 0)

        return hook

    layers = [(name, part) for name, part in module.named_modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_pre_hook(collect(name)) for name, layer in layers]
    hooks.append(module.register_forward_pre_hook(reset))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

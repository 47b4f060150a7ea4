"""Linear layers that divide what they read by a scale for each input, which their weights are multiplied by.

    {"kind": "scaled", "layers": ["blocks.0.mlp.fc1", ...]}

In floats that changes nothing. Rounded weights lose less where it matters: see `compress/_awq.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ScaledLinear(nn.Linear):
    """y = (x / scale) W^T + b, for x [..., D] and W [N, D]; `scale` [D] is a buffer."""

    scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., N]."""
        return F.linear(x / self.scale, self.weight, self.bias)


def apply(module: nn.Module, edit: Mapping[str, Any]) -> None:
    """Give the named layers a scale of ones."""
    for name in edit["layers"]:
        layer = module.get_submodule(name)
        if type(layer) is not nn.Linear:
            raise ValueError(f"{name} is no plain linear layer but a {type(layer).__name__}")
        layer.register_buffer("scale", torch.ones_like(layer.weight[0]).detach())
        layer.__class__ = ScaledLinear

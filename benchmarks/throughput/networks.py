"""The same two networks for everybody: the modules themselves, for pixels that are normalised already."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from stillroom.models.resnet import CifarResNet


def student(seed: int) -> CifarResNet:
    """resnet20, untrained."""
    torch.manual_seed(seed)
    return CifarResNet(depth=20)


def teacher(weights: Path) -> CifarResNet:
    """resnet56, trained, in inference mode."""
    network = CifarResNet(depth=56)
    network.load_state_dict(load_file(weights))
    return network.eval().requires_grad_(False)

"""What a module's answers look like, so that two modules can be compared by it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def shapes(module: nn.Module, example: Tensor) -> list[Any]:
    """The shapes of what a module says in evaluation, and in training, where some have further heads.

    The module's own buffers change, and its mode; random numbers are as they were.

    Args:
        module: whose answers they are.
        example: [1, C, H, W], seen twice: norms in training want more than one value of a channel.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return [_of(module.train(mode)(example.expand(2, -1, -1, -1))) for mode in (False, True)]


def _of(said: Any) -> Any:
    """The shapes of all tensors in an answer, however it is wrapped."""
    if isinstance(said, Tensor):
        return tuple(said.shape)
    if hasattr(said, "items"):
        return {name: _of(value) for name, value in said.items()}
    return [_of(value) for value in said] if isinstance(said, (tuple, list)) else None

"""The shapes of a module's outputs, by which a pruned module is compared with the original."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def output_shapes(module: nn.Module, example: Tensor) -> list[Any]:
    """The shapes of a module's outputs in evaluation mode and in training mode, where some modules have further heads.

    The module's buffers and its mode change; the random state does not.

    Args:
        module: in any mode.
        example: [1, C, H, W]; it is used twice in a batch, because batch norm in training needs several values.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return [_shapes(module.train(mode)(example.expand(2, -1, -1, -1))) for mode in (False, True)]


def _shapes(output: Any) -> Any:
    """The shapes of all tensors in nested dictionaries, lists and tuples."""
    if isinstance(output, Tensor):
        return tuple(output.shape)
    if hasattr(output, "items"):
        return {name: _shapes(value) for name, value in output.items()}
    return [_shapes(value) for value in output] if isinstance(output, (tuple, list)) else None

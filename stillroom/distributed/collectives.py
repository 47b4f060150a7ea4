"""What all processes hold, as one tensor: losses over a batch must see the whole batch, however many share it.

With one process every function here hands back what it was given.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def all_reduce_sum(x: Tensor) -> Tensor:
    """The sum of `x` over processes. Each one's input is in everybody's result, and gradients flow to all of them."""
    return _Sum.apply(x) if dist.is_initialized() else x


def gather_rows(x: Tensor) -> Tensor:
    """The rows [B, ...] of every process, in the order of the processes: [world * B, ...], with gradient.

    Every process holds equally many rows, which the loader guarantees. A loss of the result is the same number in
    all processes, and the mean of their gradients, which DDP takes, is the gradient that one process would have.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return x
    return _Rows.apply(x) if x.is_floating_point() else _gather(x)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _all_reduce(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _all_reduce(grad)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _gather(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        mine = len(grad) // dist.get_world_size()
        return _all_reduce(grad)[dist.get_rank() * mine :][:mine]


def _all_reduce(x: Tensor) -> Tensor:
    all_reduce_sum = x.contiguous().clone()
    dist.all_reduce(all_reduce_sum)
    return all_reduce_sum


def _gather(x: Tensor) -> Tensor:
    found = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(found, x.contiguous())
    return torch.cat(found)

"""Batch norm over all processes, so that two processes train as one would.

torch's own SyncBatchNorm runs on accelerators only; this one runs wherever `torch.distributed` does.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stillroom.distributed.collectives import all_reduce_sum


def convert_sync_batchnorm(module: nn.Module) -> None:
    """Make every batch norm in `module` see the images of all processes.

    Only the class of a norm changes: its parameters, buffers and place in the network stay what they are.
    """
    for child in module.modules():
        if isinstance(child, _BatchNorm) and not isinstance(child, _Synchronised):
            child.__class__ = _synchronised(cast(Hashable, type(child)))


class _Synchronised:
    """Batch norm with its mean and variance over n values a channel, those of every process.

        mean = sum(x) / n,  var = sum((x - mean)^2) / n,  y = (x - mean) / sqrt(var + eps) * weight + bias

    Every process holds equally many images, which the loader guarantees.
    """

    def forward(self: _BatchNorm, x: Tensor) -> Tensor:  # type: ignore[misc]
        if not self.training or not dist.is_initialized():
            return super().forward(x)  # type: ignore[misc]
        over, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        n = x.numel() // x.shape[1] * dist.get_world_size()
        wide = x.float()
        mean = all_reduce_sum(wide.sum(over)) / n
        centred = wide - mean.view(shape)
        var = all_reduce_sum(centred.square().sum(over)) / n
        _remember(self, mean.detach(), var.detach() * n / max(n - 1, 1))
        y = centred * torch.rsqrt(var + self.eps).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        y = y.to(x.dtype)
        for name in ("drop", "act"):  # timm's norms carry these in the same module
            if isinstance(after := getattr(self, name, None), nn.Module):
                y = after(y)
        return y


@torch.no_grad()
def _remember(norm: _BatchNorm, mean: Tensor, var: Tensor) -> None:
    """The running statistics, as torch keeps them."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked += 1
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(var, share)


@cache
def _synchronised(kind: Any) -> type:
    return type(f"Synchronised{kind.__name__}", (_Synchronised, kind), {})

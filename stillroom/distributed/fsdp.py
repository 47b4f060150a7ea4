"""A network that no single device could hold: each keeps a part of every weight, and all lend theirs when it is asked.

Fully sharded data parallel (Zhao et al. 2023, https://arxiv.org/abs/2304.11277) as torch.distributed.fsdp.fully_shard
does it. The weights are in groups, a block's mostly; a group is gathered when its part of the network begins and let go
when that ends, so a device holds 1/P of the network, P processes, and one or two whole groups. Each process asks about
images of its own, but all must ask equally often.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

SMALLEST = 64
"""A part of a network is a group of its own if it holds at least this fraction, 1/64, of the weights."""


def shard(network: nn.Module, device: torch.device, world: int) -> nn.Module:
    """Spread the weights of `network` over all processes; it answers as before, taps included.

    Its `state_dict()` is of parts from then on: what is saved must be saved before.

    Args:
        network: frozen, equal in all processes; on any device, so that it never has to be on `device` as a whole.
        device: this process's.
        world: P, more than one.
    """
    network.eval().requires_grad_(False)
    mesh = init_device_mesh(device.type, (world,))
    for part in _groups(network):
        fully_shard(part, mesh=mesh)
    fully_shard(network, mesh=mesh, reshard_after_forward=True)
    return network.to(device)  # buffers, which all hold


def _groups(network: nn.Module) -> list[nn.Module]:
    """Parts to gather alone, inner before outer.

    Only parts of sequences and lists: those are called, while other parts may have their weights read from outside.
    """
    least = sum(p.numel() for p in network.parameters()) / SMALLEST
    inside = (part for row in network.modules() if isinstance(row, nn.Sequential | nn.ModuleList) for part in row)
    found, known = list[nn.Module](), set[nn.Parameter]()
    for part in reversed(list(inside)):
        fresh = set(part.parameters()) - known
        if sum(p.numel() for p in fresh) >= least and not isinstance(part, nn.ModuleList | nn.ModuleDict):
            found.append(part)
            known |= fresh
    return found

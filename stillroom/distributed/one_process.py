"""The processes of a run, as the rooms below see them, and the single CPU process of commands that train nothing."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn


class Processes(Protocol):
    """What building and evaluating networks need of an `Engine`.

    Attributes:
        device: of this process.
        rank: of this process, from 0.
        world: how many there are.
    """

    device: torch.device
    rank: int
    world: int

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all must call it."""

    def broadcast(self, value: Any) -> Any:
        """The first process's value, in all of them; all must call it."""

    def barrier(self) -> None:
        """Wait for all processes."""

    def shard(self, network: nn.Module) -> nn.Module:
        """`network`, frozen, with its weights sharded over the processes."""


class OneProcess:
    """The only process, on the CPU: for `check`, `eval`, `export` and whatever opens a finished run."""

    device = torch.device("cpu")
    rank, world, first = 0, 1, True

    def any(self, flag: bool) -> bool:
        """The flag."""
        return flag

    def broadcast(self, value: Any) -> Any:
        """The value."""
        return value

    def barrier(self) -> None:
        """There is nothing to wait for."""

    def shard(self, network: nn.Module) -> nn.Module:
        """The network: it has one device."""
        return network

"""Devices and what processes exchange: Lightning Fabric behind a few plain functions.

One command runs on a laptop, on a machine with eight accelerators and under `torchrun` or `srun`. Nothing else imports
Fabric. `processes` makes an engine.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stillroom.config.schema import Training
from stillroom.distributed.errors import BatchNotDivisible
from stillroom.distributed.placement import Devices, accelerators, placement, process_counts
from stillroom.distributed.precision import deterministic
from stillroom.distributed.stacks import StackDump, exchange_timeout
from stillroom.distributed.sync_batchnorm import convert_sync_batchnorm

try:
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import ClusterEnvironment
    from lightning_fabric.strategies import DDPStrategy
except ImportError:  # machines that carry the `lightning` package have the same code inside it
    from lightning.fabric import Fabric  # type: ignore[no-redef]
    from lightning.fabric.plugins.environments import ClusterEnvironment  # type: ignore[no-redef]
    from lightning.fabric.strategies import DDPStrategy  # type: ignore[no-redef]

START = timedelta(minutes=30)  # that the first process waits for the last one to be there
LATER = timedelta(minutes=1)  # that NCCL, which aborts a process, has to wait longer than Gloo, which raises an error


class Engine:
    """One process of a run, and what it does with the others.

    Args:
        devices: how many there are on this machine; "auto" is as many as torchrun or srun have started, else every
            accelerator there is, else one.
        stack: postponed by every exchange with the others.

    Raises:
        DeviceCountMismatch: SR-R522 another number was started.
        UnequalMachines: SR-R525 machines have unequally many.
    """

    def __init__(self, devices: Devices = "auto", *, stack: StackDump | None = None):
        logging.getLogger(Fabric.__module__.partition(".")[0]).setLevel(logging.WARNING)  # its greetings are no news
        accelerator = "cuda" if accelerators() else "cpu"
        count, machines = process_counts(devices)
        limit = timedelta(seconds=exchange_timeout())
        ddp = DDPStrategy() if placement().starter else None
        self._fabric = Fabric(accelerator=accelerator, devices=count, num_nodes=machines, strategy=ddp or "auto")
        if ddp and ddp.cluster_environment and not dist.is_initialized():
            _connect(ddp.cluster_environment, "nccl" if accelerator == "cuda" else "gloo", limit)
        self._fabric.launch()
        self.device: torch.device = self._fabric.device
        self.rank: int = self._fabric.global_rank
        self.world: int = self._fabric.world_size
        # On processors, so that no accelerator is waited for. What one process does alone may take any time.
        self._flags = dist.new_group(backend="gloo", timeout=limit) if self.world > 1 else None
        self._waits = dist.new_group(backend="gloo", timeout=timedelta(days=365)) if self.world > 1 else None
        self._stack = stack
        deterministic()

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, trainings: Mapping[str, Training]) -> None:
        """Make sure that the processes can share every training's batches; `trainings` are by their recipe sections.

        Raises:
            BatchNotDivisible: SR-R523 they can't.
        """
        for section, one in trainings.items():
            parts = self.world * one.grad_accum_steps
            if one.batch % parts:
                said = f"{self.world} process{'es' if self.world > 1 else ''}"
                said += f" in {one.grad_accum_steps} micro-batches each" if one.grad_accum_steps > 1 else ""
                near = [n for n in (one.batch // parts * parts, -(-one.batch // parts) * parts) if n]
                values = {"section": section, "batch": one.batch, "parts": said}
                raise BatchNotDivisible(**values, near=" or ".join(map(str, near)))

    def shard(self, network: nn.Module) -> nn.Module:
        """`network`, which teaches and does not learn, with its weights spread over the processes: see `sharding`."""
        if self.world == 1:
            return network
        from stillroom.distributed.fsdp import shard  # here, because its part of torch takes seconds to import

        return shard(network, self.device, self.world)

    def wrap(self, learner: nn.Module) -> nn.Module:
        """What to call instead of `learner`, so that the processes' gradients become one."""
        if self.world > 1:
            convert_sync_batchnorm(learner)
        learner.to(self.device)
        learner.to(memory_format=torch.channels_last)  # convolutions are faster so, nothing is slower
        return cast(nn.Module, self._fabric.setup_module(learner))

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients to the parameters'."""
        self._fabric.backward(loss)

    @contextmanager
    def without_sync(self, model: nn.Module, off: bool) -> Iterator[None]:
        """Around a forward and backward pass; while `off` it keeps its gradients: only the last one exchanges them."""
        with self._fabric.no_backward_sync(cast(Any, model)) if off else nullcontext():
            yield

    def mean(self, numbers: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.world == 1:
            return numbers
        total = numbers.clone()
        dist.all_reduce(total)
        return total / self.world

    def any(self, flag: bool) -> bool:
        """Whether it is true in any process; all must call this, and none may be late by the timeout."""
        return self._any(flag, self._flags)

    def broadcast(self, value: Any) -> Any:
        """The first process's value, in all of them; all must call it, and wait however long it takes."""
        if self._waits is None:
            return value
        if self._stack:
            self._stack.postpone()
        values = [value]
        dist.broadcast_object_list(values, src=0, group=cast(dist.ProcessGroup, self._waits))
        return values[0]

    def barrier(self) -> None:
        """Wait for all processes, however long they take."""
        self._any(False, self._waits)

    def _any(self, flag: bool, group: Any) -> bool:
        if self._stack:
            self._stack.postpone()
        if group is None:
            return flag
        flags = torch.tensor(float(flag))
        dist.all_reduce(flags, group=group)
        return bool(flags > 0)


def _connect(environment: ClusterEnvironment, backend: str, limit: timedelta) -> None:
    """Let the processes of this attempt find each other. They may start minutes apart, then `limit` holds.

    torchrun keeps its store between attempts, and with it the addresses of the dead: so each has keys of its own.
    """
    rank, world, env = environment.global_rank(), environment.world_size(), os.environ
    serves = rank == 0 and env.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    address, port = environment.main_address, environment.main_port
    store = dist.TCPStore(address, port, is_master=serves, wait_for_workers=False, timeout=START)
    own = dist.PrefixStore(f"stillroom/{env.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    own.set(f"started/{rank}", "")
    own.wait([f"started/{one}" for one in range(world)], START)
    if backend == "nccl":
        limit += LATER
        atexit.register(dist.destroy_process_group)
    dist.init_process_group(backend, store=own, rank=rank, world_size=world, timeout=limit)

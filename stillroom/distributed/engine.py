"""Devices, precision, processes and signals: Lightning Fabric behind a few plain functions.

One command runs on a laptop, on a machine with eight accelerators and under `torchrun` or `srun`. Nothing else in the
house imports Fabric, asks for a rank or answers a signal.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stillroom.config.schema import Training
from stillroom.distributed.errors import BatchNotDivisible
from stillroom.distributed.launch import launched
from stillroom.distributed.peers import Peers
from stillroom.distributed.precision import deterministic
from stillroom.distributed.standstill import Pace
from stillroom.distributed.sync_batchnorm import convert_sync_batchnorm
from stillroom.distributed.watch import Watch
from stillroom.errors import Exit

try:
    from lightning_fabric import Fabric
except ImportError:  # machines that carry the `lightning` package have the same code inside it
    from lightning.fabric import Fabric  # type: ignore[no-redef]


def say(problem: Exception) -> int:
    """How it ended, on stderr; the exit code."""
    if not getattr(problem, "told", False):
        print(problem, file=sys.stderr)
    return int(getattr(problem, "exit", Exit.FAILED))


class Engine:
    """The processes of one run, and what they do together.

    Args:
        devices: how many processes on this machine; "auto" is as many as torchrun or srun have started, else every
            accelerator there is, else one.
        end: says how it ended and gives the exit code, for when another process has failed and the main thread can't.

    Raises:
        DeviceCountMismatch: SR-R522 torchrun or srun have started another number.
    """

    def __init__(self, devices: int | Literal["auto"] = "auto", *, end: Callable[[Exception], int] = say):
        logging.getLogger(Fabric.__module__.partition(".")[0]).setLevel(logging.WARNING)  # its greetings are no news
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        count, machines = launched(devices, torch.cuda.device_count() if accelerator == "cuda" else 1)
        strategy = "ddp" if count * machines > 1 or "TORCHELASTIC_RUN_ID" in os.environ else "auto"
        self._fabric = Fabric(accelerator=accelerator, devices=count, num_nodes=machines, strategy=strategy)
        _meet_again("nccl" if accelerator == "cuda" else "gloo")
        self._fabric.launch()
        self.device: torch.device = self._fabric.device
        self.rank: int = self._fabric.global_rank
        self.world: int = self._fabric.world_size
        self._pace, self._end = Pace(), end
        # Of processors, so that nobody waits for an accelerator to hear a word; and for as long as it takes.
        self._words = dist.new_group(backend="gloo", timeout=timedelta(days=365)) if self.world > 1 else None
        deterministic()

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    @contextmanager
    def together(self, folder: Path) -> Iterator[None]:
        """Do the block as one of the processes of the run in `folder`: whoever fails first is heard by all.

        Args:
            folder: the run's, on a disk that all machines share.

        Raises:
            StillroomError: SR-R510, SR-R524 for the folder; SR-R520, SR-R521 another process failed, see `Watch`.
        """
        if self.world == 1:
            yield
            return
        peers = Peers(folder, self.rank, self.world)
        with closing(peers), Watch(peers, self._pace, self._end).open(self.barrier):
            yield

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
        self._pace.again()
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
        with self._pace, self._fabric.no_backward_sync(cast(Any, model)) if off else nullcontext():
            yield

    def mean(self, numbers: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.world == 1:
            return numbers
        total = numbers.clone()
        dist.all_reduce(total)
        return total / self.world

    def any(self, flag: bool) -> bool:
        """Whether any process says so; all of them must ask. No accelerator is waited for."""
        if self._words is None:
            return flag
        said = torch.tensor(float(flag))
        dist.all_reduce(said, group=cast(dist.ProcessGroup, self._words))
        return bool(said > 0)

    def broadcast(self, value: Any) -> Any:
        """The first process's value, in all of them; all must call it."""
        if self._words is None:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=cast(dist.ProcessGroup, self._words))
        return values[0]

    def barrier(self) -> None:
        """Wait for all processes, however long they take."""
        self.any(False)


def _meet_again(backend: str) -> None:
    """Let processes that torchrun has started again meet apart from those before them.

    torchrun keeps its store between attempts, and with it the addresses of the dead.
    """
    env = os.environ
    attempt = env.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt != "0" and env.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and not dist.is_initialized():
        store = dist.TCPStore(env["MASTER_ADDR"], int(env["MASTER_PORT"]), is_master=False)
        own = dist.PrefixStore(f"stillroom/{attempt}", store)
        dist.init_process_group(backend, store=own, rank=int(env["RANK"]), world_size=int(env["WORLD_SIZE"]))

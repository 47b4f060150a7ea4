"""Devices, precision, processes and signals: Lightning Fabric behind a few plain functions.

One command runs on a laptop, on a node with eight accelerators and under `torchrun` or `srun`: Fabric finds out which.
Nothing else in the house imports Fabric, asks for a rank or touches a signal.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stillroom.errors import Exit, Stopped
from stillroom.norms import synchronise

try:
    from lightning_fabric import Fabric
except ImportError:  # machines that carry the `lightning` package have the same code inside it
    from lightning.fabric import Fabric  # type: ignore[no-redef]

Precision = Literal["auto", "float32", "bfloat16", "float16"]


class Engine:
    """The processes of one run, and what they do together.

    Args:
        devices: how many processes; "auto" is every accelerator there is, or one process on a CPU.
    """

    def __init__(self, devices: int | Literal["auto"] = "auto"):
        logging.getLogger(Fabric.__module__.partition(".")[0]).setLevel(logging.WARNING)  # its greetings are no news
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        if devices == "auto":
            devices = torch.cuda.device_count() if accelerator == "cuda" else 1
        strategy = "ddp" if devices > 1 or "TORCHELASTIC_RUN_ID" in os.environ else "auto"
        self._fabric = Fabric(accelerator=accelerator, devices=devices, strategy=strategy)
        self._fabric.launch()
        self.device: torch.device = self._fabric.device
        self.rank: int = self._fabric.global_rank
        self.world: int = self._fabric.world_size
        deterministic()

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def wrap(self, learner: nn.Module) -> nn.Module:
        """What to call instead of `learner`, so that the processes' gradients become one."""
        if self.world > 1:
            synchronise(learner)
        learner.to(self.device)
        learner.to(memory_format=torch.channels_last)  # convolutions are faster so, nothing is slower
        return cast(nn.Module, self._fabric.setup_module(learner))

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients to the parameters'."""
        self._fabric.backward(loss)

    def without_sync(self, model: nn.Module, off: bool) -> AbstractContextManager[Any]:
        """Hold back the exchange of gradients while `off`: only a step's last micro-batch needs it."""
        return self._fabric.no_backward_sync(cast(Any, model)) if off else nullcontext()

    def mean(self, numbers: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.world == 1:
            return numbers
        total = numbers.clone()
        dist.all_reduce(total)
        return total / self.world

    def any(self, flag: bool) -> bool:
        """Whether any process says so; all of them must ask."""
        return bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            self._fabric.barrier()


SMALL = 20_000_000
"""MACs of one image below which a second thread costs more than it brings: layers that small are done before the
threads have met, and on a busy machine each meeting waits for a time slice (docs/LOG.md has the measurement)."""


@contextmanager
def threads_for(macs: int, device: torch.device) -> Iterator[None]:
    """Threads that suit the work: one for small networks on a processor, else what torch has. Set back afterwards.

    A function of the networks alone, not of a measurement: the number of threads decides the order of sums, and the
    same recipe must give the same weights.

    Args:
        macs: of one image through all networks of a step.
        device: where they run.
    """
    before = torch.get_num_threads()
    if device.type == "cpu" and macs < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def deterministic() -> None:
    """The same numbers from the same recipe, wherever the libraries can promise it."""
    if not torch.cuda.is_available():
        torch.use_deterministic_algorithms(True)
        # Filling fresh memory with NaN costs time, and nothing here reads what it has not written.
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010


def precision_for(device: torch.device, wanted: Precision) -> torch.dtype:
    """The type for a step's arithmetic. "auto" is bfloat16 where the processor multiplies it natively."""
    if wanted != "auto":
        return cast(torch.dtype, getattr(torch, wanted))
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.backends.mkldnn.is_available() and _cpu_multiplies_bfloat16() else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported())


class Signals:
    """Ctrl-C and SIGTERM. While training they only set a flag; a second Ctrl-C, or one at any other time, ends at once.

    Every file is written whole or not at all, so ending at once loses work but corrupts nothing.
    """

    def __init__(self) -> None:
        self.caught: Exit | None = None
        self._waiting = False

    @contextmanager
    def listen(self) -> Iterator[Signals]:
        """Answer signals inside the block; only a main thread can."""
        exits = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED}

        def handle(number: int, _frame: object) -> None:
            exit = exits[signal.Signals(number)]
            if self._waiting and self.caught is None:
                self.caught = exit
            else:
                raise Stopped(exit)

        before = {number: signal.signal(number, handle) for number in exits}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside the block the first signal waits in `caught`."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

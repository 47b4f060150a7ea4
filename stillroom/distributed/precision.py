"""Number formats, threads and determinism of a step's arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast

import torch

Precision = Literal["auto", "float32", "bfloat16", "float16"]


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

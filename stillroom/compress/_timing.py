"""The latency of a module relative to that of another."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def time_ratio(module: nn.Module, other: nn.Module, example: Tensor, *, rounds: int = 15) -> float:
    """Time of `other` for one image, divided by the time of `module`, on one thread; the median over rounds.

    The two run alternately, so that other load on the machine affects both.
    """
    with one_thread(), torch.inference_mode():
        for one in (module, other, module, other):
            one(example)
        return statistics.median(_seconds(other, example) / _seconds(module, example) for _ in range(rounds))


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with a single thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _seconds(module: nn.Module, example: Tensor) -> float:
    start = time.perf_counter()
    module(example)
    return time.perf_counter() - start

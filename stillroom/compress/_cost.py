"""The time that a module takes, beside another."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def share_of_time(module: nn.Module, other: nn.Module, example: Tensor, *, rounds: int = 15) -> float:
    """Time that `other` takes for one image, on one thread, as a share of the time that `module` takes.

    The two run in turns, so that whatever else the machine does meets both; the median of the rounds' ratios.
    """
    with one_thread(), torch.inference_mode():
        for one in (module, other, module, other):
            one(example)
        return statistics.median(_seconds(other, example) / _seconds(module, example) for _ in range(rounds))


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _seconds(module: nn.Module, example: Tensor) -> float:
    began = time.perf_counter()
    module(example)
    return time.perf_counter() - began

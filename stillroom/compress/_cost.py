"""What a module costs: multiply-accumulates that are counted, and time that is taken."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def macs(module: nn.Module, example: Tensor) -> dict[str, int]:
    """Multiply-accumulates by the name of the part; those of the whole module under "".

    Convolutions, matrix products and attention count. Done on a copy without data, where attention takes the plain
    path, which the counter knows.

    Args:
        module: what is counted; left as it is.
        example: [1, C, H, W], as the module takes it.
    """
    ghost = copy.deepcopy(module).to("meta").eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        ghost(torch.empty_like(example, device="meta"))
    root = type(ghost).__name__
    counts = {name: sum(by_operation.values()) // 2 for name, by_operation in counter.get_flop_counts().items()}
    found = {name.removeprefix(f"{root}."): count for name, count in counts.items() if name.startswith(f"{root}.")}
    return found | {"": counter.get_total_flops() // 2}


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

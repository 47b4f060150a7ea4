"""Work on all cores of this process, for functions that let go of the interpreter lock: decoding, arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def thread_map(function: Callable[[T], U], values: Sequence[T], *, min_chunk: int = 4) -> list[U]:
    """function(value) for each, in order, `least` or more in a row on one thread.

    The threads live as long as the call: nothing outlives it, and a process that forks later has none to lose.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    length = max(min_chunk, -(-len(values) // (8 * cores)))
    parts = [values[start : start + length] for start in range(0, len(values), length)]
    if cores == 1 or len(parts) < 2:
        return [function(value) for value in values]
    with ThreadPoolExecutor(cores, thread_name_prefix="stillroom-data") as pool:
        done = pool.map(lambda part: [function(value) for value in part], parts)
        return [result for part in done for result in part]

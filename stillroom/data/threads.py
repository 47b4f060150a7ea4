"""A map over threads, for functions that release the interpreter lock: image decoding, array operations."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def thread_map(function: Callable[[T], U], values: Sequence[T], *, min_chunk: int = 4) -> list[U]:
    """function(value) for each value, in order, at least `min_chunk` consecutive values per thread.

    The threads end with the call, so a process that forks later inherits none.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    length = max(min_chunk, -(-len(values) // (8 * cores)))
    chunks = [values[start : start + length] for start in range(0, len(values), length)]
    if cores == 1 or len(chunks) < 2:
        return [function(value) for value in values]
    with ThreadPoolExecutor(cores, thread_name_prefix="stillroom-data") as pool:
        results = pool.map(lambda chunk: [function(value) for value in chunk], chunks)
        return [result for chunk in results for result in chunk]

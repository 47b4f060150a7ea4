"""How fast rows of a large file come that the system does not hold in memory: mapped, mapped at random, by position.

    python benchmarks/cold_reads.py

The file is sparse, 60 GB long and takes no disk; its pages are made when they are first read. Prints MB/s, the median
and the range over five rounds in turns. It is why `stillroom/teachers/cache.py` reads by position.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from collections.abc import Callable

import numpy as np

SIZE, ROW, ROWS, ROUNDS = 60 * 2**30, 200 * 2**10, 100, 5


def by_position(file: int, offsets: list[int]) -> None:
    """`pread`, as the cache does."""
    for offset in offsets:
        os.pread(file, ROW, offset)


def mapped(file: int, offsets: list[int], advice: int | None = None) -> None:
    """Copied out of a map of the whole file."""
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as held:
        if advice is not None:
            held.madvise(advice)
        for offset in offsets:
            held[offset : offset + ROW]


def at_random(file: int, offsets: list[int]) -> None:
    """The same, the system told not to read ahead."""
    mapped(file, offsets, mmap.MADV_RANDOM)


def main() -> None:
    ways: tuple[Callable[[int, list[int]], None], ...] = (by_position, mapped, at_random)
    random = np.random.default_rng(0)
    found: dict[str, list[float]] = {way.__name__: [] for way in ways}
    with tempfile.TemporaryFile() as file:
        file.truncate(SIZE)
        for _ in range(ROUNDS):
            for way in ways:
                offsets = random.integers(SIZE - ROW, size=ROWS).tolist()
                started = time.perf_counter()
                way(file.fileno(), offsets)
                found[way.__name__].append(ROWS * ROW / 2**20 / (time.perf_counter() - started))
    for name, speeds in found.items():
        print(f"{name:12} {np.median(speeds):6.0f} MB/s ({min(speeds):.0f} to {max(speeds):.0f})")


if __name__ == "__main__":
    main()

"""Values computed ahead of use in a background thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

DEPTH = 2  # values that are ready before they are needed


def prefetch(make: Callable[[int], T], indices: Iterable[int]) -> Generator[T]:
    """make(index) for each index, computed in one background thread, up to `DEPTH` values ahead.

    A thread is enough because numpy and Pillow release the interpreter lock; unlike worker processes it copies nothing
    and needs no fork. An exception in `make` is raised here.
    """
    ready: queue.Queue[T | _Raised | None] = queue.Queue(DEPTH)
    closed = threading.Event()

    def put(value: T | _Raised | None) -> bool:
        while not closed.is_set():
            try:
                ready.put(value, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for index in indices:
                if closed.is_set() or not put(make(index)):
                    return
            put(None)
        except BaseException as problem:  # of any kind: it is raised again in the consumer's thread
            put(_Raised(problem))

    worker = threading.Thread(target=work, name="stillroom-loader", daemon=True)
    worker.start()
    try:
        while (value := ready.get()) is not None:
            if isinstance(value, _Raised):
                raise value.problem
            yield value
    finally:
        closed.set()
        with suppress(queue.Empty):
            while True:
                ready.get_nowait()  # wakes the worker if it waits for space in the queue
        worker.join()


class _Raised:
    def __init__(self, problem: BaseException):
        self.problem = problem

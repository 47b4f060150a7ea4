"""SIGINT and SIGTERM, deferred while a training step is running."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from stillroom.errors import Exit, Stopped


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
                if signal.getsignal(number) is handle:  # a process that ends because another failed ignores them
                    signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside the block the first signal waits in `caught`."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

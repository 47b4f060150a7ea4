"""Where a process stands while others wait for it: `faulthandler` writes its stack, even while Python code can't run.

A process that is stopped by SIGSTOP writes nothing. On Linux its launcher sees it.
"""

from __future__ import annotations

import faulthandler
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir

from stillroom.distributed.errors import ProcessStalled, Remote

PREFIX = "stillroom-processes-"  # of temporary folders
PAUSE = 30.0  # seconds that a process may be stopped by a signal
EARLY = 0.9  # stacks are written after this part of the timeout, so that they are there when an exchange ends by it


def exchange_timeout() -> float:
    """Seconds that processes wait for each other in one exchange: `STILLROOM_TIMEOUT`, or five minutes."""
    return float(os.environ.get("STILLROOM_TIMEOUT", "300"))


def records_in(folder: Path | None, run: str) -> Path:
    """Where the processes leave their stacks, and the records of their failures.

    Args:
        folder: the run's, where processes may be on several machines; None on one.
        run: a name for this start of the command, for another one may be at work in the same folder.
    """
    return folder / ".processes" / run if folder else Path(gettempdir(), PREFIX + run)


class StackDump:
    """Writes the stacks of this process's threads to a file, unless it is postponed before the timeout.

    Args:
        path: the file, which is empty at first.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")
        self.postpone()

    def postpone(self) -> None:
        """Start to wait anew: this process is about to take part in an exchange."""
        faulthandler.cancel_dump_traceback_later()
        self._file.seek(0)
        self._file.truncate()
        faulthandler.dump_traceback_later(EARLY * exchange_timeout(), file=self._file)

    def close(self) -> None:
        """Write nothing any more."""
        faulthandler.cancel_dump_traceback_later()
        self._file.close()


def stalled(rank: int, world: int, records: Path) -> ProcessStalled:
    """The error of the process that keeps the others waiting, with the line where it stands; the log has all stacks."""
    paths = [records / f"{one}.stack" for one in range(world)]
    dumps = [path.read_text(encoding="utf-8") if path.exists() else "" for path in paths]
    place, seconds = innermost_call(dumps[rank]) or "it does not react", f"{exchange_timeout():g}"
    problem = ProcessStalled(rank=rank, world=world, place=place, seconds=seconds)
    problem.__cause__ = Remote("\n".join(f"process {one}\n{dump}" for one, dump in enumerate(dumps)))
    return problem


def innermost_call(dump: str) -> str | None:
    """Where the main thread stood, of the last thread in a dump; None where nothing was written."""
    found = re.search(r'File "(.+)", line (\d+) in (\S+)', dump.rpartition("Thread 0x")[2])
    return f"{Path(found[1]).name}, line {found[2]}, in {found[3]}" if found else None


class Pauses:
    """How long processes of this machine have been stopped by a signal.

    Args:
        pids: rank -> process number.
    """

    def __init__(self, pids: Mapping[int, int]):
        self._pids, self._limit, self._since = pids, min(PAUSE, exchange_timeout()), dict[int, float]()

    def too_long(self) -> ProcessStalled | None:
        """The error of one that has been stopped for too long; to be asked often."""
        now = time.monotonic()
        self._since = {rank: self._since.get(rank, now) for rank, pid in self._pids.items() if _is_stopped(pid)}
        values = {"world": len(self._pids), "place": "stopped by a signal (SIGSTOP)", "seconds": f"{self._limit:g}"}
        late = (rank for rank, since in self._since.items() if now - since > self._limit)
        return next((ProcessStalled(rank=rank, **values) for rank in late), None)


def _is_stopped(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False

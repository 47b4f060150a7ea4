"""What the processes of a run can know of each other: who lives, and what the others said last.

Each process holds the lock of a file of its own, `.processes/RANK` in the run's folder, for as long as it lives: the
system lets go of it, however the process ends. In the file it writes what the others may have to know.

Files and locks, and not messages: they need nobody to be well, work whatever the devices talk with, and the folder has
to be shared anyway, for every process reads checkpoints from it.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from stillroom.distributed.errors import FolderNotShared
from stillroom.io.errors import RunFolderLocked

POLL = 0.5  # seconds between two looks at the others
HEARING = 5.0  # seconds that others get: to leave, or to say why they failed


class Peers:
    """One process among those of a run.

    Args:
        folder: the run's.
        rank: which process this is.
        world: how many there are.

    Raises:
        RunFolderLocked: SR-R510 a process of another run has this one's file.
    """

    def __init__(self, folder: Path, rank: int, world: int):
        self.folder, self.rank, self.world = Path(folder), rank, world
        self.others = [other for other in range(world) if other != rank]
        self.watched = [0] if rank else self.others  # a star: all together look at each other 2 (world - 1) times
        self._said: dict[str, Any] = {"pid": os.getpid(), "host": socket.gethostname()}
        path = self._place(rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file, deadline = path.open("a+", encoding="utf-8"), time.monotonic() + HEARING
        while not _locked(self._file, fcntl.LOCK_EX):  # one of an earlier run may still be leaving
            if time.monotonic() > deadline:
                self._file.close()
                raise RunFolderLocked(folder=folder, holder=f"pid {self.words(rank).get('pid', '?')}")
            time.sleep(POLL / 5)
        self.say()

    def close(self) -> None:
        """No longer one of them."""
        self._file.close()

    def see_all(self) -> None:
        """Make sure that the others' files, which they have written by now, are here too.

        Raises:
            FolderNotShared: SR-R524 one is not: its machine has another disk.
        """
        deadline = time.monotonic() + 2 * HEARING  # a shared disk may take a while
        for other in self.others:
            while not self.words(other):
                if time.monotonic() > deadline:
                    host = self._said["host"]
                    raise FolderNotShared(rank=self.rank, host=host, other=other, folder=self.folder)
                time.sleep(POLL / 5)

    def say(self, **more: Any) -> None:
        """Let the others know, besides what was said before."""
        self._said |= more
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(self._said))
        self._file.flush()
        os.fsync(self._file.fileno())

    def words(self, rank: int) -> dict[str, Any]:
        """What a process has said; nothing while it is being written."""
        try:
            return json.loads(self._place(rank).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def gone(self, rank: int) -> bool:
        """Whether a process is dead, or has left."""
        try:
            with self._place(rank).open("r", encoding="utf-8") as file:
                return _locked(file, fcntl.LOCK_SH)
        except OSError:
            return False

    def wait_for(self, ranks: Iterable[int]) -> list[int]:
        """Wait a little until they have left; those who have not."""
        deadline, left = time.monotonic() + HEARING, list(ranks)
        while (left := [rank for rank in left if not self.gone(rank)]) and time.monotonic() < deadline:
            time.sleep(POLL / 5)
        return left

    def see_off(self, ranks: Iterable[int]) -> None:
        """Wait until they have left. Who can't, for it stands still, is ended, if it is on this machine."""
        for words in map(self.words, self.wait_for(ranks)):
            if words.get("host") == self._said["host"]:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(words["pid"], signal.SIGKILL)

    def _place(self, rank: int) -> Path:
        return self.folder / ".processes" / str(rank)


def _locked(file: IO[str], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

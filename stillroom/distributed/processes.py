"""The door to several processes: every command that trains does its work inside `processes`."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stillroom.distributed.errors import FolderNotShared
from stillroom.distributed.launch import launch, reported
from stillroom.distributed.placement import Devices, die_with_launcher, placement, process_counts
from stillroom.distributed.stacks import StackDump, records_in

if TYPE_CHECKING:
    from stillroom.distributed.engine import Engine

SHARED = 10.0  # seconds until a file that one machine has written must be seen by the others


@contextmanager
def processes(devices: Devices = "auto", *, folder: Path | None = None, max_restarts: int = 0) -> Iterator[Engine]:
    """Do the block in all processes of this command, which are started here unless torchrun or srun have done so.

    This process is then their launcher, and never comes to the block. Where one process fails, all end.

    Args:
        devices: see `Engine`.
        folder: the run's, on a disk that all machines share.
        max_restarts: how often processes that are started here are started again when one has failed.

    Raises:
        StillroomError: SR-R520, SR-R521 a process failed, with its exit code; SR-R522, SR-R525 torchrun or srun have
            started another number; SR-R524 `folder` is not shared.
        SystemExit: in the launcher, when all is done.
    """
    at, (here, _) = placement(), process_counts(devices)
    if not at.starter and (here > 1 or max_restarts):
        launch(here, max_restarts, folder)
    from stillroom.distributed.engine import Engine  # here, because it takes seconds, and the launcher doesn't need it

    if not at.starter:
        yield Engine(devices)
        return
    die_with_launcher()
    records = records_in(None if at.launcher else folder, at.run)
    (records / f"{at.rank}.json").unlink(missing_ok=True)
    stack = StackDump(records / f"{at.rank}.stack")
    with closing(stack), reported(at, folder, records):
        engine = Engine(devices, stack=stack)
        if folder:
            _check_shared(engine, records, folder)
        yield engine
        engine.barrier()  # all is done when it is done in process 0
    if engine.first and not at.launcher:
        shutil.rmtree(records, ignore_errors=True)
        with suppress(OSError):  # another command's are there
            records.parent.rmdir()


def _check_shared(engine: Engine, records: Path, folder: Path) -> None:
    """Make sure that every process sees the files that all have written."""
    engine.barrier()
    deadline, host = time.monotonic() + SHARED, socket.gethostname()
    for rank in range(engine.world):
        while not (records / f"{rank}.stack").exists():
            if time.monotonic() > deadline:
                raise FolderNotShared(rank=engine.rank, host=host, other=rank, folder=folder)
            time.sleep(0.1)

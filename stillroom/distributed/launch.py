"""The processes of a run: how they are started for `--devices N`, and which of their failures was the first.

The process half of torch's elastic agent starts them. A process that fails leaves a record in `.processes` of the run's
folder. Its end breaks the connections of the others, so most records are of consequences: those are `secondary`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import sys
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn

from torch.distributed import TCPStore
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, SubprocessContext, api

from stillroom.distributed.errors import KILLED, ProcessEnded, Remote, lines_for
from stillroom.distributed.placement import Placement, worker_environment
from stillroom.distributed.stacks import Pauses, records_in, stalled
from stillroom.errors import Exit, StillroomError, Stopped
from stillroom.io.files import write_json
from stillroom.io.run_dir import record_end

log = logging.getLogger("stillroom")
api.logger.disabled = True  # the ends of processes are reported here

GRACE, SAVING = 5, 100  # seconds that workers have to end: after a failure, and when the user stops the run
WAIT, LEAVING = 4.0, 6.0  # seconds that a failed process waits for the records of others, and has to end
EXCHANGE = re.compile(r"/torch/(distributed|autograd|nn/parallel)/")  # a RuntimeError from there may be a consequence


class _Workers(SubprocessContext):
    def close(self, death_sig: signal.Signals | None = None, timeout: int = GRACE) -> None:
        super().close(death_sig, timeout)


def launch(count: int, restarts: int, folder: Path | None) -> NoReturn:
    """Run this command in `count` processes, `restarts` times more where they fail; end as they end."""
    run = uuid.uuid4().hex
    for attempt in range(restarts + 1):
        problem = _attempt(count, run, attempt, records_in(None, run))
        if problem is None:
            break
        record_end(folder, problem)
        if attempt == restarts or problem.exit not in (Exit.FAILED, Exit.RESOURCES):
            raise problem
        log.warning("%s\n  next   all processes are started again, for the %d. time", problem, attempt + 1)
    sys.exit()


def _attempt(count: int, run: str, attempt: int, records: Path) -> StillroomError | Stopped | None:
    """Start the workers and wait for their end; the first failure, if there is one."""
    shutil.rmtree(records, ignore_errors=True)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environments = {rank: worker_environment(rank, count, store.port, run, attempt) for rank in range(count)}
    command = dict.fromkeys(range(count), tuple(sys.orig_argv[1:]))
    workers = _Workers("stillroom", sys.executable, command, environments, DefaultLogsSpecs(os.devnull))
    try:
        workers.start()
        pauses = Pauses(workers.pids())
        while (result := workers.wait(1, 0.1)) is None:
            ends = recorded_ends(records, count, 0)
            if any(time.time() - end.time > LEAVING for end in ends.values()):
                workers.close(signal.SIGKILL)
            if problem := pauses.too_long():
                workers.close(signal.SIGKILL)
                return problem
    except SignalException as stop:
        return Stopped(Exit.INTERRUPTED if stop.sigval == signal.SIGINT else Exit.TERMINATED)
    finally:
        workers.close(signal.SIGTERM, SAVING)
    ends = recorded_ends(records, count, 0)
    for rank in [*result.failures][:1]:  # the first, for others may have been ended by `close`
        ends.setdefault(rank, End(rank))
    return first_failure(ends, count, records) if ends else None


@dataclass(frozen=True)
class End:
    """How a process ended; the defaults are those of one that was killed, and so left no record."""

    rank: int
    lines: dict[str, str] = field(default_factory=lambda: KILLED)
    exit: int = Exit.RESOURCES
    secondary: int = 0  # 1: it was asked to stop, 2: an exchange with other processes failed
    timed_out: bool = False
    trace: str = ""
    time: float = field(default_factory=time.time)

    @classmethod
    def of(cls, rank: int, problem: Exception) -> End:
        """The record of a process that ends with `problem`."""
        where = traceback.extract_tb(problem.__traceback__)[-1].filename
        exchange = isinstance(problem, RuntimeError) and bool(EXCHANGE.search(where))
        late = exchange and bool(re.search("timed? ?out", str(problem), re.IGNORECASE))
        code, trace = int(getattr(problem, "exit", Exit.FAILED)), "".join(traceback.format_exception(problem))
        return cls(rank, lines_for(problem), code, 2 if exchange else int(isinstance(problem, Stopped)), late, trace)


@contextmanager
def reported(at: Placement, folder: Path | None) -> Iterator[None]:
    """Do the block as one process of several. One of those that fail raises the first failure, the others end silently.

    Process 0 raises its own failures, our launcher those of others. Without it, the lowest rank that is left does.
    """
    records = records_in(None if at.launcher else folder, at.run)
    try:
        yield
    except Exception as problem:
        with suppress(ValueError):  # only a main thread may: launchers send SIGTERM to the others when one has failed
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        own = End.of(at.rank, problem)
        write_json(records / f"{at.rank}.json", asdict(own))
        if at.rank == 0 and not own.secondary:
            raise
        hasty = at.launcher and own.secondary and not own.timed_out  # the launcher sees what the cause is
        ends = recorded_ends(records, at.world, 0 if hasty else WAIT)
        found = first_failure(ends, at.world, records)
        found.told = found.told or at.launcher > 0 or at.rank != min(ends)
        if not found.told:
            record_end(folder, found)
        raise found from problem


def recorded_ends(records: Path, world: int, seconds: float) -> dict[int, End]:
    """The records by rank, as soon as all have left theirs, or when the seconds have passed."""
    deadline = time.monotonic() + seconds
    while len(found := [*records.glob("*.json")]) < world and time.monotonic() < deadline:
        time.sleep(0.05)
    return {int(path.stem): End(**json.loads(path.read_text(encoding="utf-8"))) for path in found}


def first_failure(ends: dict[int, End], world: int, records: Path) -> StillroomError | Stopped:
    """What the other failures follow from; `told` if process 0 prints it. One without an end is dead or stalled."""
    end = min(ends.values(), key=lambda end: (end.secondary, end.rank > 0, end.time))
    waited, lost = {rank for rank, end in ends.items() if end.timed_out}, sorted({*range(world)} - ends.keys())
    if end.secondary and waited:
        rank = min(range(world), key=lambda rank: (rank in waited, rank in ends, rank))
        return stalled(rank, world, records)
    end = End(lost[0]) if end.secondary and lost else end
    if end.exit in (Exit.INTERRUPTED, Exit.TERMINATED):
        return Stopped(Exit(end.exit))
    failure = ProcessEnded(rank=end.rank, world=world, **end.lines)
    failure.exit, failure.__cause__ = Exit(end.exit), Remote(end.trace) if end.trace else None
    failure.told = end.rank == 0 and bool(end.trace)
    return failure

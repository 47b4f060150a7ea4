"""The processes of a run: torch's elastic agent starts those of `--devices N`; which of their failures was the first.

The end of one breaks the connections of the others, so most of the records that they leave are of consequences.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, NoReturn

from torch.distributed import TCPStore
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, SubprocessContext, api

from stillroom.distributed.errors import ProcessEnded, Remote, killed, lines_for
from stillroom.distributed.placement import Placement, worker_environment
from stillroom.distributed.stacks import PREFIX, Pauses, stalled
from stillroom.errors import Exit, StillroomError, Stopped
from stillroom.io.files import write_json
from stillroom.io.run_end import record_end

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
    for attempt in range(restarts + 1):
        with TemporaryDirectory(prefix=PREFIX) as records:
            problem = _attempt(count, attempt, Path(records))
        if problem is None:
            break
        record_end(folder, problem)
        if attempt == restarts or problem.exit not in (Exit.FAILED, Exit.RESOURCES):
            raise problem
        log.warning("%s\n  next   all processes are started again, for the %d. time", problem, attempt + 1)
    sys.exit()


def _attempt(count: int, attempt: int, records: Path) -> StillroomError | Stopped | None:
    """Start the workers and wait for their end; the first failure, if there is one."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environments = {rank: worker_environment(rank, count, store.port, records, attempt) for rank in range(count)}
    command = dict.fromkeys(range(count), tuple(sys.orig_argv[1:]))
    workers = _Workers("stillroom", sys.executable, command, environments, DefaultLogsSpecs(os.devnull))
    try:
        workers.start()
        pauses = Pauses(workers.pids())
        while (result := workers.wait(1, 0.1)) is None:
            ends = recorded_ends(records, count, 0)
            late = any(time.time() - end.time > LEAVING for end in ends.values())
            if problem := pauses.too_long() or (first_failure(ends, count, records) if late else None):
                workers.close(signal.SIGKILL)
                return problem
    except SignalException as stop:
        return Stopped(Exit.INTERRUPTED if stop.sigval == signal.SIGINT else Exit.TERMINATED)
    finally:
        workers.close(signal.SIGTERM, SAVING)
    first = [*result.failures.items()][:1]  # the others may have been ended by `close`
    ends = {rank: End(rank, killed(one.exitcode)) for rank, one in first} | recorded_ends(records, count, 0)
    return first_failure(ends, count, records) if ends else None


class End(NamedTuple):
    """How a process ended; the defaults are those of one that was killed, and so left no record."""

    rank: int
    lines: dict[str, str] = killed()
    exit: int = Exit.RESOURCES
    secondary: int = 0  # 1: it was asked to stop, 2: an exchange with other processes failed, 3: or took too long
    trace: str = ""
    time: float = 0.0

    @classmethod
    def of(cls, rank: int, problem: Exception) -> End:
        """The record of a process that ends with `problem`."""
        code, trace = int(getattr(problem, "exit", Exit.FAILED)), "".join(traceback.format_exception(problem))
        secondary, where = int(isinstance(problem, Stopped)), traceback.extract_tb(problem.__traceback__)[-1].filename
        if isinstance(problem, RuntimeError) and EXCHANGE.search(where):
            secondary = 3 if re.search("timed? ?out", str(problem), re.IGNORECASE) else 2
        return cls(rank, lines_for(problem), code, secondary, trace, time.time())


@contextmanager
def reported(at: Placement, folder: Path | None, records: Path) -> Iterator[None]:
    """Do the block as one process of several. One of those that fail raises the first failure, the others end silently.

    Process 0 raises its own failures, our launcher those of others. Without it, the lowest rank that is left does.
    """
    try:
        yield
    except Exception as problem:
        with suppress(ValueError):  # only a main thread may: launchers send SIGTERM to the others when one has failed
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        own = End.of(at.rank, problem)
        write_json(records / f"{at.rank}.json", own)
        if at.rank == 0 and not own.secondary:
            raise
        ends = recorded_ends(records, at.world, 0 if at.launcher and own.secondary in (1, 2) else WAIT)
        if at.launcher:
            sys.stdout.flush()
            os._exit(own.exit)  # at once: to end in order takes seconds, and its launcher reports the failure
        found = first_failure(ends, at.world, records)
        found.told = found.told or at.rank != min(ends)
        if not found.told:
            record_end(folder, found)
        raise found from problem


def recorded_ends(records: Path, world: int, seconds: float) -> dict[int, End]:
    """The records by rank, as soon as all have left theirs, or when the seconds have passed."""
    deadline = time.monotonic() + seconds
    while len(found := [*records.glob("[0-9]*.json")]) < world and time.monotonic() < deadline:
        time.sleep(0.05)
    return {int(path.stem): End(*json.loads(path.read_text(encoding="utf-8"))) for path in found}


def first_failure(ends: dict[int, End], world: int, records: Path) -> StillroomError | Stopped:
    """What the other failures follow from; `told` if process 0 prints it. One without an end is dead or stalled."""
    end = min(ends.values(), key=lambda end: (end.secondary, end.rank > 0, end.time))
    waited, lost = [rank for rank in ends if ends[rank].secondary == 3], sorted({*range(world)} - ends.keys())
    if end.secondary and waited:
        return stalled(min(range(world), key=lambda rank: (rank in waited, rank in ends)), world, records)
    end = End(lost[0]) if end.secondary and lost else end
    if end.exit in (Exit.INTERRUPTED, Exit.TERMINATED):
        return Stopped(Exit(end.exit))
    failure = ProcessEnded(rank=end.rank, world=world, **end.lines)
    failure.exit, failure.__cause__ = Exit(end.exit), Remote(end.trace) if end.trace else None
    failure.told = end.rank == 0 and bool(end.trace)
    return failure

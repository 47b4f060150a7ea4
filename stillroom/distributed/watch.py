"""The processes of a run watch each other: what goes wrong first is heard by all, and none outlives it.

Process 0 looks at everybody's file (`Peers`) twice a second, everybody else at that of process 0:

    it says that it has failed, and why         SR-R520 with its words
    it is gone, and has said nothing            SR-R520: killed, most likely
    it keeps the others waiting in a step       SR-R521 with the line where it stands, see `standstill`

Whoever finds something repeats it, and then ends with the exit code of the process that failed first; process 0 prints
it. What else broke because of it, connections mostly, is never told.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stillroom.distributed.errors import ProcessEnded, ProcessStalled
from stillroom.distributed.peers import HEARING, POLL, Peers
from stillroom.distributed.standstill import Pace, Standstill
from stillroom.errors import Exit, StillroomError, Stopped
from stillroom.io.run_dir import RunDir

log = logging.getLogger("stillroom")

ELSEWHERE = (ProcessEnded, ProcessStalled)  # what is said of another process
AGAIN = "mend the cause and give the same command again: it goes on from there, with as many processes as there are"


class Watch:
    """One process's eye on the others.

    Args:
        peers: all of them.
        pace: of this process's training.
        end: says how it ended and gives the exit code, for when the main thread stands still and can't.
    """

    def __init__(self, peers: Peers, pace: Pace, end: Callable[[Exception], int]):
        self._peers, self._standstill, self._end = peers, Standstill(peers, pace), end
        self._ending = threading.Lock()  # taken once, by the thread that ends this process's part
        self._found: StillroomError | Stopped | None = None

    @contextmanager
    def open(self, barrier: Callable[[], None]) -> Iterator[None]:
        """Do the block as one of many; it ends when it has ended for process 0.

        Args:
            barrier: waits for all of them.

        Raises:
            StillroomError: SR-R520, SR-R521 another process failed first, with its exit code; and whatever the block
                raises. `told` where another process says it.
        """
        try:
            barrier()  # what an earlier run left in the files is gone
            self._peers.see_all()
            threading.Thread(target=self._look, name="stillroom-watch", daemon=True).start()
            yield
            self._end_together()
        except Exception as problem:
            self._ending.acquire()
            found = self._explained(problem)
            if found is problem:
                raise
            raise found from problem
        self._ending.acquire()

    def _look(self) -> None:
        """In a thread of its own, until this process ends: by itself where the main thread can, or from here."""
        while not self._ending.locked():
            time.sleep(POLL)
            found = self._trouble() or self._standstill.look()
            if found is None or (isinstance(found, Stopped) and self._peers.rank == 0):
                continue  # whoever was asked to stop has left in order, and process 0 may still be saving
            if isinstance(found, ProcessStalled):
                self._found = found
                self._part(found)
            # Where the main thread waits for one that has ended, its connection breaks, and it leaves in order.
            time.sleep(HEARING if self._peers.rank == 0 and not self._found else 2 * POLL)
            if self._ending.acquire(blocking=False):
                os._exit(self._end(self._take_leave(found)))

    def _trouble(self) -> StillroomError | Stopped | None:
        """What another process ended with, if not well."""
        for other in self._peers.watched:
            gone, words = self._peers.gone(other), self._peers.words(other)  # in this order: words come before death
            if words.get("exit"):
                return _repeated(words)
            if gone and "exit" not in words:
                why = "it could not say why: somebody killed it, or the system did, for the memory it took"
                fix = f"see its machine's log for what ended it; {AGAIN}"
                return self._of(other, Exit.RESOURCES, words=" without a word", why=why, fix=fix)
        return None

    def _of(self, rank: int, exit: Exit, **values: Any) -> StillroomError:
        failure = ProcessEnded(rank=rank, world=self._peers.world, **values)
        failure.exit = exit
        return failure

    def _explained(self, problem: Exception) -> Exception:
        """What this process ends with: `problem`, or what it follows from where that happened elsewhere."""
        before = _deaf()
        found = self._found or self._cause(problem)
        if found is None:  # a problem of our own is perhaps not the end: a run with another seed goes on
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._take_leave(found or problem)

    def _cause(self, problem: Exception) -> StillroomError | Stopped | None:
        """What happened elsewhere that `problem` may follow from.

        A broken connection is a RuntimeError. Launchers ask the others to stop when one has died.
        """
        if not isinstance(problem, RuntimeError | Stopped):
            return None
        deadline = time.monotonic() + (2 * POLL if isinstance(problem, Stopped) else HEARING)
        while (found := self._trouble()) is None and time.monotonic() < deadline:
            time.sleep(POLL / 5)
        return None if isinstance(problem, Stopped) and isinstance(found, Stopped) else found

    def _take_leave(self, problem: Exception) -> Exception:
        """End this process's part of the run; what it ends with."""
        told = self._part(problem)
        if told.told:
            return told
        run = RunDir(self._peers.folder)
        if isinstance(problem, ELSEWHERE) and run.info:
            run.note(status="failed", exit_code=int(told.exit), resumable=True)
        return problem

    def _part(self, problem: Exception) -> StillroomError | Stopped:
        """Tell it to the others, and see them off; the problem as they tell it."""
        told = self._as_told(problem)
        words: dict[str, Any] = {"exit": int(told.exit), "stopped": isinstance(told, Stopped)}
        if isinstance(told, StillroomError):
            words |= {"code": told.code, "values": told.values, "trace": traceback.format_exception(problem)}
        self._peers.say(**words)
        told.told = not self._speaks(told)
        if not told.told:
            self._peers.see_off(self._peers.others)
        return told

    def _speaks(self, told: StillroomError | Stopped) -> bool:
        """Whether this is the process that says it to people: process 0, or the next one where that can't."""
        if self._peers.rank == 0:
            return True
        accused = isinstance(told, StillroomError) and told.values["rank"] == 0
        return self._peers.rank == 1 and accused and "exit" not in self._peers.words(0)

    def _as_told(self, problem: Exception) -> StillroomError | Stopped:
        """A problem as the other processes tell it."""
        if isinstance(problem, Stopped):
            return problem
        if not isinstance(problem, StillroomError):
            last = traceback.extract_tb(problem.__traceback__)[-1]
            words, why = f": {type(problem).__name__}: {problem}", f"{Path(last.filename).name}, line {last.lineno}"
            return self._of(self._peers.rank, Exit.FAILED, words=words, why=why, fix=AGAIN)
        if isinstance(problem, ELSEWHERE):
            return problem
        words = f": {problem.code} {problem.what}"
        return self._of(self._peers.rank, problem.exit, words=words, why=problem.why, fix=problem.fix)

    def _end_together(self) -> None:
        """All is done here; process 0 may still be writing, and may still fail."""
        if self._peers.rank == 0:
            self._peers.say(exit=0)
            self._peers.wait_for(self._peers.others)
        while self._peers.words(0).get("exit") != 0:
            if found := self._trouble():
                raise found
            time.sleep(POLL / 5)


def _repeated(words: dict[str, Any]) -> StillroomError | Stopped:
    """What another process has said, as a problem of this one."""
    if words["stopped"]:
        return Stopped(Exit(words["exit"]))
    log.debug("%s", "".join(words["trace"]))
    failure = next(kind for kind in ELSEWHERE if kind.code == words["code"])(**words["values"])
    failure.exit = Exit(words["exit"])
    return failure


def _deaf() -> dict[int, Any]:
    """Ignore requests to end, for that is what happens already; what answered them until now.

    A launcher that sees one process die sends them to all others, whose words would be lost.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}

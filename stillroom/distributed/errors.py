"""Several processes that train one network."""

from __future__ import annotations

import signal
import traceback
from pathlib import Path

from stillroom.errors import Exit, ResourceError, StillroomError


class ProcessEnded(ResourceError):
    code = "SR-R520"
    what = "process {rank} of {world} ended{words}"
    why = "{why}"
    effect = "all processes ended with it; the last good checkpoint is intact"
    fix = "{fix}"


AGAIN = "give the same command again: it resumes, with any number of processes; or let --max-restarts do it"


def killed(exitcode: int | None = None) -> dict[str, str]:
    """The lines of `ProcessEnded` for a process that could not report anything, with its exit code if that is known."""
    words = " without an error of its own" if exitcode is None else f" with exit code {exitcode} and left no record"
    if exitcode is not None and exitcode < 0:
        words = f" by {signal.Signals(-exitcode).name}"
    why = "a person or the scheduler killed it, or the system for the memory it took: see its machine's log"
    return {"words": words, "why": why, "fix": AGAIN}


def lines_for(problem: Exception) -> dict[str, str]:
    """The lines of `ProcessEnded` for a process that ended with `problem`."""
    if isinstance(problem, StillroomError):
        return {"words": f": {problem.code} {problem.what}", "why": problem.why, "fix": problem.fix}
    last = traceback.extract_tb(problem.__traceback__)[-1]
    words, why = f": {type(problem).__name__}: {problem}", f"{Path(last.filename).name}, line {last.lineno}"
    return {"words": words, "why": why, "fix": f"mend the cause and {AGAIN}"}


class Remote(Exception):
    """The cause of an error that happened in another process: its traceback, or the stacks of all."""


class ProcessStalled(ResourceError):
    code = "SR-R521"
    what = "process {rank} of {world} stands still   {place}"
    why = "it has not reached an exchange of numbers in which the others have waited for it, for {seconds} s"
    effect = "all processes ended; the last good checkpoint is intact"
    fix = (
        "look at that line, and in run.log at the stacks of all; if a step may well take so long, set "
        "STILLROOM_TIMEOUT to more seconds; the same command resumes, with any number of processes"
    )


class DeviceCountMismatch(ResourceError):
    code = "SR-R522"
    exit = Exit.USAGE
    what = "--devices {devices}, but {starter} has started {here} on this machine"
    why = "each process trains on a device of its own"
    effect = "nothing was trained"
    fix = "leave out --devices, or have {starter} start as many"


class BatchNotDivisible(ResourceError):
    code = "SR-R523"
    exit = Exit.USAGE
    what = "{section}.batch = {batch} can't be shared equally by {parts}"
    why = (
        "every process takes an equal part of each batch, cut into equal micro-batches, so that two learn as one would"
    )
    effect = "nothing was started"
    fix = "set {section}.batch to {near}, or take another number of processes"


class FolderNotShared(ResourceError):
    code = "SR-R524"
    what = "process {rank} on {host} does not see what process {other} wrote   {folder}"
    why = "all processes of a run read its folder, so their machines must share the disk it is on"
    effect = "nothing was trained"
    fix = "give a folder that every machine sees: --folder /SHARED/runs/NAME"


class UnequalMachines(ResourceError):
    code = "SR-R525"
    exit = Exit.USAGE
    what = "{starter} has started {world} processes, and {here} of them on this machine"
    why = "devices are told apart by a process's number on its machine, and every machine must have equally many"
    effect = "nothing was trained"
    fix = "start as many on each machine: --nproc-per-node of torchrun, --ntasks-per-node of srun"

"""A program of two processes that exchange a number twenty times. It is started by a test, as a script of its own.

    python workers.py FAULT...

FAULT is KIND:RANK, what one process does before its fifth exchange, or KIND for all; the n-th is for the n-th attempt.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from stillroom.distributed.launch import launch, reported
from stillroom.distributed.placement import die_with_launcher, placement
from stillroom.distributed.signals import Signals
from stillroom.distributed.stacks import StackDump, exchange_timeout, records_in
from stillroom.errors import StillroomError, Stopped


def mistake() -> None:
    raise ValueError("seven is no number")


FAULTS = {
    "mistake": mistake,
    "exit": lambda: os._exit(9),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "sleep": lambda: time.sleep(1000),
    "none": lambda: None,
}


def main(folder: Path, faults: list[str]) -> None:
    at = placement()
    if not at.starter:
        launch(2, len(faults) - 1, folder)
    die_with_launcher()
    records = records_in(None if at.launcher else folder, at.run)
    stack = StackDump(records / f"{at.rank}.stack")
    kind, _, rank = faults[int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))].partition(":")
    (folder / f"{at.rank}.pid").write_text(str(os.getpid()))
    while len(list(folder.glob("*.pid"))) < at.world:
        time.sleep(0.05)
    with reported(at, folder, records):
        dist.init_process_group("gloo", timeout=timedelta(seconds=exchange_timeout()))
        for turn in range(20):
            stack.postpone()
            if turn == 5 and rank in ("", str(at.rank)):
                FAULTS[kind]()
            dist.all_reduce(torch.ones(1))
    if at.rank == 0:
        print("done")


if __name__ == "__main__":
    with Signals().listen():
        try:
            main(Path.cwd(), sys.argv[1:])
        except (StillroomError, Stopped, ValueError) as problem:
            if not getattr(problem, "told", False):
                print(problem, file=sys.stderr)
            sys.exit(int(getattr(problem, "exit", 1)))

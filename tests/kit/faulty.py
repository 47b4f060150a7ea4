"""A method that misbehaves: Hinton's, until process RANK of `FAULT=KIND:RANK` comes to its sixth loss.

Only at the first attempt: processes that are started again behave. Tests copy this file beside the recipe, as a user's
own code: `methods=faulty:Faulty`.
"""

from __future__ import annotations

import os
import signal
import time
from itertools import count

import torch.distributed as dist

from stillroom.methods.hinton import Hinton

FIRST = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
KIND, _, RANK = os.environ.get("FAULT", "").partition(":") if FIRST else ("", "", "")
CALLS = count(1)


class Faulty(Hinton):
    """See above."""

    def loss(self, *given):
        if next(CALLS) == 6 and dist.is_initialized() and dist.get_rank() == int(RANK or -1):
            faults[KIND]()
        return super().loss(*given)


def mistake():
    raise ValueError("seven is no number")


def disaster():
    raise RuntimeError("eight is no number")


faults = {
    "mistake": mistake,
    "disaster": disaster,
    "exit": lambda: os._exit(9),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "sleep": lambda: time.sleep(1000),
}

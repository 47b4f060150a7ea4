"""Who starts the processes of a run: `torchrun`, `srun`, or, on one machine, this command itself.

Each way, all processes do the same command. What starts them tells each its place in the environment.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Literal

from stillroom.distributed.errors import DeviceCountMismatch, ProcessEnded, UnequalMachines
from stillroom.errors import Exit

POLL = 0.5  # seconds between two looks at parent or children
PATIENCE = 20.0  # seconds that a process has to end by itself when one of its family has ended


def launched(devices: int | Literal["auto"], available: int) -> tuple[int, int]:
    """Have all processes of this run started; how many there are on each machine, and how many machines.

    Args:
        devices: how many the user wants on one machine; "auto" takes `available`, or what torchrun or srun started.
        available: accelerators of this machine, 1 if there are none.

    Raises:
        StillroomError: SR-R522 the user wants another number than were started; SR-R525 machines have unequally many.
    """
    starter, world, here = _started()
    if starter:
        if devices not in ("auto", here):
            raise DeviceCountMismatch(devices=devices, starter=starter, here=here)
        if world % here:
            raise UnequalMachines(starter=starter, world=world, here=here)
        return here, world // here
    count = available if devices == "auto" else devices
    if count > 1:
        _start(count)
    return count, 1


def _started() -> tuple[str, int, int]:
    """By whom, how many in all, how many on this machine; "" where nobody did."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        return "torchrun", int(env["WORLD_SIZE"]), int(env["LOCAL_WORLD_SIZE"])
    if "SLURM_NTASKS" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        world, machines = int(env["SLURM_NTASKS"]), int(env.get("SLURM_NNODES", "1"))
        each = env.setdefault("SLURM_NTASKS_PER_NODE", str(-(-world // machines)))
        return "srun", world, int(each)
    return "", 1, 1


def _start(count: int) -> None:
    """Start processes 1 to `count` - 1, unless this is one of them or has started them before.

    Parent and children look after each other from the start, before they meet as peers: no family survives a member.
    """
    if "LOCAL_RANK" in os.environ:
        if "STILLROOM_PARENT" in os.environ:
            _in_background(_leave_with_parent, int(os.environ["STILLROOM_PARENT"]))
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "WORLD_SIZE": str(count)}
    parent = {"STILLROOM_PARENT": str(os.getpid())}
    command = [sys.executable, *_program(), *sys.argv[1:]]
    ranks = [{"LOCAL_RANK": str(rank)} for rank in range(count)]
    children = [subprocess.Popen(command, env=os.environ | parent | rank) for rank in ranks[1:]]
    os.environ |= ranks[0]
    atexit.register(_gather, children)
    _in_background(_leave_with_children, children)


def _program() -> list[str]:
    """What Python was told to run."""
    spec = sys.modules["__main__"].__spec__
    return [os.path.abspath(sys.argv[0])] if spec is None else ["-m", spec.name]


def _in_background(look: Callable[..., None], *given: object) -> None:
    threading.Thread(target=look, args=given, name="stillroom-launch", daemon=True).start()


def _leave_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL)
    time.sleep(PATIENCE)
    os._exit(Exit.RESOURCES)


def _leave_with_children(children: list[subprocess.Popen[bytes]]) -> None:
    while not (ended := [rank for rank, child in enumerate(children, 1) if child.poll()]):
        time.sleep(POLL)
    time.sleep(PATIENCE)
    code = children[ended[0] - 1].returncode
    why, fix = f"it ended with exit code {code} before the processes had met", "give the same command again"
    print(ProcessEnded(rank=ended[0], world=len(children) + 1, words=" early", why=why, fix=fix), file=sys.stderr)
    for child in children:
        child.kill()
    os._exit(Exit.RESOURCES)


def _gather(children: list[subprocess.Popen[bytes]]) -> None:
    """Wait for the children to end; end those that do not."""
    deadline = time.monotonic() + PATIENCE
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

"""Which of how many processes this one is: what torchrun, srun or our own launcher write into the environment."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stillroom.distributed.errors import DeviceCountMismatch, UnequalMachines
from stillroom.distributed.stacks import PREFIX
from stillroom.errors import Exit

Devices = int | Literal["auto"]
LAUNCHER = "STILLROOM_LAUNCHER"
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


@dataclass(frozen=True)
class Placement:
    """One of `world` processes, of which `here` are on this machine.

    `starter` is empty where this command was started alone, and `launcher` the process number of a launcher of ours.
    `run` is a name for this start of the command, the same in all processes.
    """

    starter: str = ""
    rank: int = 0
    world: int = 1
    here: int = 1
    launcher: int = 0
    run: str = ""


def placement() -> Placement:
    """Of the calling process."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        rank, world, here = (int(env[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        return Placement("torchrun", rank, world, here, int(env.get(LAUNCHER, "0")), env["TORCHELASTIC_RUN_ID"])
    if "SLURM_NTASKS" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        world, machines = int(env["SLURM_NTASKS"]), int(env.get("SLURM_NNODES", "1"))
        here = int(env.setdefault("SLURM_NTASKS_PER_NODE", str(-(-world // machines))))
        return Placement("srun", int(env.get("SLURM_PROCID", "0")), world, here, run=env.get("SLURM_JOB_ID", ""))
    return Placement()


def worker_environment(rank: int, world: int, port: int, records: Path, attempt: int) -> dict[str, str]:
    """For a process that our launcher starts: what torchrun would set, and the launcher's process number.

    Args:
        rank: which of them it is.
        world: how many there are, all on this machine.
        port: of the store through which they find each other.
        records: the temporary folder of this launcher.
        attempt: how often they were started before.
    """
    here = dict.fromkeys(("RANK", "LOCAL_RANK", "ROLE_RANK"), str(rank))
    here |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE", "ROLE_WORLD_SIZE"), str(world))
    here |= {"GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    here |= {"TORCHELASTIC_RUN_ID": records.name.removeprefix(PREFIX), "TORCHELASTIC_RESTART_COUNT": str(attempt)}
    return here | {"TORCHELASTIC_USE_AGENT_STORE": "True", LAUNCHER: str(os.getpid())}


def die_with_launcher() -> None:
    """Have the system kill this process as soon as its launcher has ended, however that ends. Linux can."""
    launcher = placement().launcher
    if launcher and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if launcher and os.getppid() != launcher:  # it has ended before
        os._exit(Exit.RESOURCES)


def accelerators() -> int:
    """How many this machine has."""
    import torch  # here, because all else in this module is read in an instant

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def process_counts(devices: Devices) -> tuple[int, int]:
    """How many processes each machine has, and how many machines there are. For `devices` see `Engine`.

    Raises:
        DeviceCountMismatch: SR-R522 another number was started.
        UnequalMachines: SR-R525 machines have unequally many.
    """
    at = placement()
    if not at.starter:
        return (accelerators() or 1 if devices == "auto" else devices), 1
    if devices not in ("auto", at.here):
        raise DeviceCountMismatch(devices=devices, starter=at.starter, here=at.here)
    if at.world % at.here:
        raise UnequalMachines(starter=at.starter, world=at.world, here=at.here)
    return at.here, at.world // at.here

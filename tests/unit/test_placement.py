"""What torchrun, srun and our own launcher write into the environment is read from there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stillroom.distributed import placement as module
from stillroom.distributed.placement import LAUNCHER, Placement, placement, process_counts, worker_environment
from stillroom.errors import StillroomError

TORCHRUN = {"TORCHELASTIC_RUN_ID": "a", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SRUN = {
    "SLURM_NTASKS": "6",
    "SLURM_NNODES": "3",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_PROCID": "3",
    "SLURM_JOB_ID": "7",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Nothing was started; sets more variables."""
    for name in (*TORCHRUN, *SRUN, "SLURM_JOB_NAME", LAUNCHER):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return lambda **more: [monkeypatch.setenv(name, value) for name, value in more.items()]


@pytest.mark.parametrize(
    ("env", "found"),
    [
        (TORCHRUN, Placement("torchrun", 5, 8, 4, run="a")),
        (SRUN, Placement("srun", 3, 6, 2, run="7")),
        ({"SLURM_NTASKS": "2"}, Placement("srun", 0, 2, 2)),
        ({"SLURM_NTASKS": "8", "SLURM_NNODES": "2"}, Placement("srun", 0, 8, 4)),
        (SRUN | TORCHRUN, Placement("torchrun", 5, 8, 4, run="a")),  # torchrun inside a job of SLURM
        ({"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "interactive"}, Placement()),
        ({}, Placement()),
    ],
)
def test_placement(environment, env, found):
    environment(**env)
    assert placement() == found
    assert process_counts("auto") == (found.here, found.world // found.here)


def test_what_our_launcher_writes_is_read_as_such(environment):
    environment(**worker_environment(1, 3, 4242, Path("/tmp/stillroom-processes-b"), 2))
    assert placement() == Placement("torchrun", 1, 3, 3, launcher=os.getpid(), run="b")


def test_as_many_as_there_are_accelerators(monkeypatch):
    assert process_counts(3) == (3, 1)
    monkeypatch.setattr(module, "accelerators", lambda: 2)
    assert process_counts("auto") == (2, 1) and process_counts(1) == (1, 1)


def test_another_number_than_was_started(environment):
    environment(**TORCHRUN)
    assert process_counts(4) == (4, 2)
    with pytest.raises(StillroomError, match="SR-R522 --devices 3, but torchrun has started 4 on this machine"):
        process_counts(3)
    environment(WORLD_SIZE="7")
    with pytest.raises(StillroomError, match="SR-R525 torchrun has started 7 processes, and 4 of them on this machine"):
        process_counts("auto")


def test_a_worker_whose_launcher_has_ended_before_ends_at_once(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    launcher = subprocess.Popen([sys.executable, "-c", ""])
    launcher.wait()
    program = "from stillroom.distributed.placement import die_with_launcher; die_with_launcher(); print('alive')"
    env = os.environ | TORCHRUN | {LAUNCHER: str(launcher.pid)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (5, "")

"""Who starts the processes is read from the environment; where nobody does, this program does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from stillroom.distributed import launch
from stillroom.distributed.launch import launched
from stillroom.errors import StillroomError

TORCHRUN = {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SRUN = {"SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_NTASKS_PER_NODE": "2"}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Nobody has started anything; what is set is forgotten again."""
    for name in (*TORCHRUN, *SRUN, "SLURM_JOB_NAME", "LOCAL_RANK", "STILLROOM_PARENT", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return lambda **more: [monkeypatch.setenv(name, value) for name, value in more.items()]


@pytest.fixture
def started(monkeypatch):
    """How many were started here."""
    found = []
    monkeypatch.setattr(launch, "_start", found.append)
    return found


@pytest.mark.parametrize(
    ("env", "places"),
    [
        (TORCHRUN, (4, 2)),
        (SRUN, (2, 3)),
        ({"SLURM_NTASKS": "2"}, (2, 1)),
        ({"SLURM_NTASKS": "8", "SLURM_NNODES": "2"}, (4, 2)),
        (SRUN | TORCHRUN, (4, 2)),  # torchrun inside a job of SLURM
        ({"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "interactive"}, (1, 1)),
        ({}, (1, 1)),
    ],
)
def test_places(environment, started, env, places):
    environment(**env)
    assert launched("auto", 1) == places and not started


def test_without_a_launcher_this_program_starts_them(started):
    assert launched(3, 1) == (3, 1) and launched("auto", 2) == (2, 1) and launched(1, 4) == (1, 1)
    assert started == [3, 2]


def test_another_number_than_was_started(environment, started):
    environment(**TORCHRUN)
    assert launched(4, 1) == (4, 2)
    with pytest.raises(StillroomError, match="SR-R522 --devices 3, but torchrun has started 4 on this machine"):
        launched(3, 1)
    environment(WORLD_SIZE="7")
    with pytest.raises(StillroomError, match="SR-R525 torchrun has started 7 processes, and 4 of them on this machine"):
        launched("auto", 1)
    assert not started


FAMILY = """
import os, sys, time
from stillroom import launch
launch.PATIENCE = 0.5
launch.launched(2, 1)
print(os.getpid(), flush=True)
{}
"""


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("sys.exit(4 if os.environ['LOCAL_RANK'] == '1' else time.sleep(60))", 5, "process 1 of 2 ended early"),
        ("time.sleep(60) if os.environ['LOCAL_RANK'] == '1' else os._exit(3)", 3, ""),
        ("time.sleep(60) if os.environ['LOCAL_RANK'] == '1' else sys.exit(3)", 3, ""),
    ],
    ids=["child", "parent", "parent in order"],
)
def test_no_family_survives_a_member(tmp_path, end, code, said):
    program = tmp_path / "family.py"
    program.write_text(FAMILY.format(end))
    env = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, program], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == code and said in done.stderr  # and both have let go of the pipes
    assert len(set(done.stdout.split())) == 2

"""The real command in a process of its own, with the network shut off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

STILLROOM = Path(sys.executable).with_name("stillroom")
OFFLINE = Path(__file__).with_name("offline")

QUICK = [
    "digits",
    "train.steps=12",
    "teacher.network=resnet8",
    "teacher.width=1.0",
    "teacher.train.steps=12",
    "train.checkpoint_seconds=0",
    "teacher.train.checkpoint_seconds=0",
    "train.precision=float32",
    "teacher.train.precision=float32",
    "export=[]",
]
"""A whole run in seconds: three stages of twelve steps, a checkpoint after each step, no files exported."""


def environment(**more: str) -> dict[str, str]:
    """This process's, with `offline/sitecustomize.py` refusing every connection that leaves the machine.

    The checkout that is tested comes first, whichever one the environment has installed.
    """
    path = os.pathsep.join([str(OFFLINE), str(Path(__file__).resolve().parents[2])])
    return os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "default"} | more


def start(*words: str | Path, cwd: Path, **more: str) -> subprocess.Popen[str]:
    """The command, started."""
    return subprocess.Popen(
        [STILLROOM, *map(str, words)],
        cwd=cwd,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stillroom(*words: str | Path, cwd: Path, code: int | None = 0, **more: str) -> subprocess.CompletedProcess[str]:
    """The command, done; its exit code must be `code`, unless that is None."""
    process = start(*words, cwd=cwd, **more)
    try:
        out, err = process.communicate(timeout=280)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    assert code is None or done.returncode == code, f"exit code {done.returncode}, not {code}\n{out}\n{err}"
    assert "Traceback" not in err or "-v" in words, err
    return done

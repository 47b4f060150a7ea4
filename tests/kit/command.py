"""The real command in a process of its own, with the network shut off.

Most of these processes are forked from one that has imported the libraries: that takes longer than most commands.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

from kit import forked

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


FORKABLE = {"OMP_NUM_THREADS", "PYTHONPATH"}
"""Variables that make a difference only after the libraries are imported."""


@functools.cache
def server() -> Path:
    """The socket of the process from which the others are forked; a `stillroom` that asks it lies beside it."""
    return forked.server(STILLROOM, environment())


def start(*words: str | Path, cwd: Path, fresh: bool = False, **more: str) -> subprocess.Popen[str] | forked.Process:
    """The command, started; in a new interpreter if `fresh`, or if `more` holds what an import may read."""
    command, env = [str(STILLROOM), *forked.brief(map(str, words))], environment(**more)
    if not fresh and more.keys() <= FORKABLE and hasattr(os, "pidfd_open"):
        return forked.Process(server(), command, cwd=cwd, env=env)
    return subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stillroom(
    *words: str | Path, cwd: Path, code: int | None = 0, fresh: bool = False, **more: str
) -> subprocess.CompletedProcess[str]:
    """The command, done; its exit code must be `code`, unless that is None."""
    done = _done(start(*words, cwd=cwd, fresh=fresh, **more))
    err, out = done.stderr, done.stdout
    assert code is None or done.returncode == code, f"exit code {done.returncode}, not {code}\n{out}\n{err}"
    assert "Traceback" not in err or "-v" in words, err
    return done


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`python -c CODE`, done, whatever its end."""
    return _done(forked.Process(server(), ["-c"], cwd=cwd, env=environment(), code=code))


def bash(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Lines of a shell, done, whatever their end; in them too `stillroom` is a fork."""
    path = os.pathsep.join([str(server().parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    words, pipe = ["bash", "-euo", "pipefail", "-c", code], subprocess.PIPE
    return _done(subprocess.Popen(words, cwd=cwd, env=environment(PATH=path), stdout=pipe, stderr=pipe, text=True))


def _done(process: subprocess.Popen[str] | forked.Process) -> subprocess.CompletedProcess[str]:
    try:
        out, err = process.communicate(timeout=280)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)

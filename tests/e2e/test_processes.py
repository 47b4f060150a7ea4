"""One process equals two; a process that dies takes the others with it, soon and with its own words."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from kit.command import QUICK, start, stillroom
from kit.training import furthest
from safetensors.torch import load_file

from stillroom.run import read_stream

STEADY = [*QUICK, "train.optimizer=sgd", "teacher.train.optimizer=sgd", "train.lr=0.01", "teacher.train.lr=0.01"]
"""SGD: Adam divides by the gradient's size, and so hides a wrong scale and magnifies rounding."""


COUPLED = 'methods=["hinton", "fitnet", "dist", {name = "crd", bank = 256}, "reviewkd", "wkd_logits"]'
"""Parts of their own, batch norms of their own, correlations over the batch, queues, running covariances."""


@pytest.mark.parametrize("methods", [(), (COUPLED, "balance=true")], ids=["hinton", "coupled"])
def test_one_process_equals_two(methods, tmp_path):
    for processes in (1, 2):
        words = [*STEADY, *methods, "--devices", str(processes), "--folder", str(processes)]
        stillroom("run", *words, cwd=tmp_path)
    for stage in ("teacher", "baseline", "student"):
        one, two = (load_file(tmp_path / str(n) / f"{stage}.safetensors") for n in (1, 2))
        assert furthest(one, two) < 1e-4, stage
    losses = [[line["loss"] for line in read_stream(tmp_path / str(n), "steps.jsonl")] for n in (1, 2)]
    assert len(losses[0]) == len(losses[1]) == 36
    assert max(abs(a - b) / max(1, a) for a, b in zip(*losses, strict=True)) < 1e-4
    assert json.loads((tmp_path / "2" / "run.json").read_text())["hardware"]["processes"] == 2


def children(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found.append(int(entry))
    return found


def test_begun_by_two_and_ended_by_one(tmp_path):
    """A rank is killed; the other ends too. One process alone takes the run up, and it ends as one alone would."""
    words = ["run", *STEADY, "--folder", "x"]
    process = start(*words, "--devices", "2", cwd=tmp_path)
    deadline = time.monotonic() + 120
    while len(list(read_stream(tmp_path / "x", "steps.jsonl"))) < 15 and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in children(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0
    stillroom(*words, "--devices", "1", cwd=tmp_path)
    stillroom("run", *STEADY, "--folder", "alone", cwd=tmp_path)
    for stage in ("teacher", "baseline", "student"):
        one, two = (load_file(tmp_path / name / f"{stage}.safetensors") for name in ("x", "alone"))
        assert furthest(one, two) < 1e-4, stage

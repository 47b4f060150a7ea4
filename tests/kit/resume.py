"""Waiting for a run to have got somewhere, and holding two runs against each other."""

from __future__ import annotations

import time

from safetensors.torch import load_file

from kit.training import same
from stillroom.io.run_dir import read_stream

STAGES = ("teacher", "baseline", "student")


def wait_for_steps(folder, count, process):
    """Until the run has logged so many steps."""
    deadline = time.monotonic() + 120
    while len(list(read_stream(folder, "steps.jsonl"))) < count:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


def assert_equal_runs(one, two, stages=STAGES):
    stages = [stage for stage in stages if (one / f"{stage}.safetensors").is_file()]
    assert {"baseline", "student"} <= set(stages)  # a teacher that was taken as it is leaves no file
    for stage in stages:
        assert same(load_file(one / f"{stage}.safetensors"), load_file(two / f"{stage}.safetensors")), stage
    for name in ("steps.jsonl", "evals.jsonl"):
        lines = [list(read_stream(folder, name)) for folder in (one, two)]
        for line in (*lines[0], *lines[1]):
            line.pop("seconds", None)
            line.pop("wait", None)
        assert lines[0] == lines[1]
    predictions = [load_file(folder / "samples" / "predictions.safetensors") for folder in (one, two)]
    assert same(*predictions)

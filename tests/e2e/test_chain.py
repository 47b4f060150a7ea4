"""A student made smaller through the command: every stage leaves a file, any order works, nothing is lost by a kill."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from kit.command import OFFLINE, QUICK, start, stillroom
from kit.resume import assert_equal_runs, wait_for_steps
from safetensors.torch import load_file

import stillroom as sr
from stillroom.io.run_dir import read_stream
from stillroom.models import flops

KIT = str(Path(__file__).parents[1])
OWN = {"PYTHONPATH": f"{OFFLINE}:{KIT}", "OMP_NUM_THREADS": "1"}
STEPS = "train.steps=6"
CHAIN = [
    *QUICK,
    "name=chain",
    'compress=[{name="prune", macs=0.5, rounds=2, round_to=1}, {name="factorize", energy=0.9, least=2}, "quantize"]',
]
STAGES = ("teacher", "baseline", "distilled", "prune.round-1", "prune", "factorize", "student")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    stillroom("run", *CHAIN, cwd=folder, **OWN)
    return folder / "runs" / "chain"


def test_each_stage_leaves_a_file_and_a_line(whole):
    assert {path.stem for path in whole.glob("*.safetensors")} == set(STAGES)
    trail = json.loads((whole / "run.json").read_text())["compress"]
    assert [row["stage"] for row in trail] == ["distilled", "prune", "factorize", "student"]
    assert [row["what"].partition(",")[0] for row in trail] == ["distilled", "prune", "factorize", "quantize"]
    macs = [row["macs"] for row in trail]
    assert macs[1] == pytest.approx(macs[0] / 2, rel=0.05) and macs[2] <= macs[1] and macs[3] == macs[2]
    assert trail[3]["bytes"] < trail[2]["bytes"] / 2 and all(row["latency_ms"] > 0 for row in trail)
    assert not (whole / "checkpoints").exists()


def test_the_report_shows_all_of_them(whole):
    metrics = json.loads((whole / "metrics.json").read_text())
    assert [row["stage"] for row in metrics["stages"]] == ["distilled", "prune", "factorize"]
    for row in metrics["stages"]:
        assert {"accuracy", "agreement", "macs", "latency_ms"} <= row.keys()
    page = (whole / "report.html").read_text()
    assert "distilled" in page and "prune" in page and "factorize" in page


def test_a_finished_run_opens_with_every_form(whole):
    finished = sr.open(whole)
    images = torch.rand(3, 1, 8, 8)
    for stage in STAGES[1:]:
        assert finished.network(stage)(images).pred.shape == (3, 10)
    kinds = [edit["kind"] for edit in finished.student.edits]
    assert kinds == ["pruned", "pruned", "factored", "grid"]
    file = load_file(whole / "student.safetensors")
    assert all(torch.equal(value, file[name]) for name, value in finished.student.weights().items())


@pytest.mark.slow
def test_killed_again_and_again_is_uninterrupted(whole, tmp_path):
    folder, chance = tmp_path / "runs" / "chain", random.Random(0)
    for steps in (27, 38, 41, 46):
        process = start("run", *CHAIN, cwd=tmp_path, **OWN)
        wait_for_steps(folder, steps, process)
        time.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    stillroom("run", *CHAIN, cwd=tmp_path, **OWN)
    assert_equal_runs(whole, folder, stages=STAGES)
    steps = [(line["stage"], line["step"]) for line in read_stream(folder, "steps.jsonl")]
    assert len(steps) == len(set(steps)) and steps[-1] == ("student", 4)


@pytest.mark.slow
def test_another_run_begins_with_a_smaller_student(whole, tmp_path):
    """A file of weights is enough: its form goes with it."""
    words = ["digits", STEPS, "teacher=resnet8", f"teacher.weights={whole / 'teacher.safetensors'}", "baseline=false"]
    words += [f"student.weights={whole / 'prune.safetensors'}", "compress=quantize", "export=[{bits=8}]", "name=next"]
    stillroom("run", *words, cwd=tmp_path, code=None, **OWN)
    student, before = sr.open(tmp_path / "runs" / "next").student, sr.open(whole).network("prune")
    assert [edit["kind"] for edit in student.edits] == ["pruned", "pruned", "grid"]
    assert flops.macs(student, (1, 8, 8)) == flops.macs(before, (1, 8, 8))


@pytest.mark.slow
@pytest.mark.parametrize(
    "order", ['["quantize", {name="prune", macs=0.7, round_to=1}]', '["factorize", {name="prune", round_to=1}]']
)
def test_any_order_works(order, tmp_path):
    stillroom("run", *QUICK, f"compress={order}", cwd=tmp_path, code=None, **OWN)
    assert json.loads((tmp_path / "runs" / "digits" / "run.json").read_text())["status"] == "done"


@pytest.mark.slow
def test_one_s_own_compression_and_no_teacher(tmp_path):
    words = [*QUICK, 'compress=[{name="kit.compressions:Same", rounds=2, distill=false}]', "name=own"]
    stillroom("run", *words, cwd=tmp_path, **OWN)
    folder = tmp_path / "runs" / "own"
    steps = [line for line in read_stream(folder, "steps.jsonl") if line["stage"].startswith("student")]
    assert {line["stage"] for line in steps} == {"student.round-1", "student"}
    assert all(set(line["weights"]) == {"task"} for line in steps)

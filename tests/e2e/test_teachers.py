"""Several teachers through the command: checked, trained, stopped, resumed, reported, opened again."""

from __future__ import annotations

import json
import signal

import pytest
from kit.command import start, stillroom
from kit.resume import assert_equal_runs, wait_for_steps
from kit.training import same
from safetensors.torch import load_file

import stillroom as sr
from stillroom.io.run_dir import read_stream

RECIPE = """
baseline = true
export = []
data = "digits"
student = "resnet8"
methods = [{name = "ca_mkd", features = 1.0}, {name = "fitnet", teacher_taps = ["2/layer3"]}]
[teacher]
network = "resnet8"
combine = "probabilities"
train = {steps = 12}
[[teachers]]
network = "resnet8"
train = {steps = 8}
[[teachers]]
network = "resnet14"
width = 0.5
train = {steps = 12}
[train]
steps = 12
precision = "float32"
checkpoint_seconds = 0
num_evals = 2
"""
STEPS = {"teacher": 12, "teacher-2": 8, "teacher-3": 12, "baseline": 12, "student": 12}


def write(folder):
    (folder / "three.toml").write_text(RECIPE)
    return folder / "runs" / "three"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody disturbed."""
    cwd = tmp_path_factory.mktemp("whole")
    folder = write(cwd)
    stillroom("run", "three.toml", cwd=cwd)
    return folder


def test_check_names_them_all(tmp_path):
    write(tmp_path)
    said = stillroom("check", "three.toml", cwd=tmp_path).stdout
    for stage in ("teacher ", "teacher-2 ", "teacher-3 "):
        assert any(line.startswith(stage) for line in said.splitlines()), stage
    assert "3 teachers: the mean of their probabilities" in said
    assert "3/linear:in" in said and "2/layer3" in said


def test_each_is_trained_and_the_figures_are_those_of_all(whole):
    info, metrics = (json.loads((whole / f"{name}.json").read_text()) for name in ("run", "metrics"))
    counted = {stage: 0 for stage in STEPS}
    for line in read_stream(whole, "steps.jsonl"):
        counted[line["stage"]] += 1
    assert counted == STEPS
    weights = {stage: load_file(whole / f"{stage}.safetensors") for stage in STEPS}
    assert not same(weights["teacher"], weights["teacher-2"])  # one network, two beginnings
    files = [whole / f"{stage}.safetensors" for stage in STEPS if stage.startswith("teacher")]
    run = sr.open(whole)
    one = sum(sum(p.numel() for p in run.network(file.stem).parameters()) for file in files)
    assert metrics["teacher"]["parameters"]["value"] == one
    assert metrics["teacher"]["bytes"]["value"] == sum(file.stat().st_size for file in files)
    about = info["networks"]["teacher"]
    assert about["network"] == "resnet8 + resnet8 + resnet14" and len(about["members"]) == 3
    assert about["combine"] == "probabilities" and about["members"][2]["arguments"] == {"width": 0.5}


def test_the_report_names_them_all(whole):
    assert "resnet8 + resnet8 + resnet14 (width 0.5)" in (whole / "README.md").read_text()
    stillroom("report", whole, cwd=whole.parent)
    assert "teacher-3" in (whole / "report.html").read_text()


def test_opened_again_they_say_what_they_said(whole):
    known = json.loads((whole / "metrics.json").read_text())
    assert sr.open(whole).evaluate()["teacher"]["accuracy"] == known["teacher"]["accuracy"]


@pytest.mark.slow
def test_killed_in_the_second_teacher_it_ends_the_same(whole, tmp_path):
    folder = write(tmp_path)
    process = start("run", "three.toml", cwd=tmp_path)
    wait_for_steps(folder, STEPS["teacher"] + 3, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    stillroom("run", "three.toml", cwd=tmp_path)
    assert_equal_runs(whole, folder)
    for stage in ("teacher-2", "teacher-3"):
        assert same(load_file(whole / f"{stage}.safetensors"), load_file(folder / f"{stage}.safetensors"))

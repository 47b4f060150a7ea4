"""Killed, stopped, doubled: the folder is never spoilt, and the end is always the same, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import time

import pytest
from kit.command import QUICK, start, stillroom
from kit.resume import STAGES, assert_equal_runs, wait_for_steps
from kit.training import same
from safetensors.torch import load_file

from stillroom.io.run_dir import read_stream


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    stillroom("run", *QUICK, cwd=folder)
    return folder / "runs" / "digits"


def test_killed_again_and_again_is_uninterrupted(whole, tmp_path):
    folder, chance = tmp_path / "runs" / "digits", random.Random(0)
    for steps in (3, 17, 30):
        process = start("run", *QUICK, cwd=tmp_path)
        wait_for_steps(folder, steps, process)
        time.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    stillroom("run", *QUICK, cwd=tmp_path)
    assert_equal_runs(whole, folder)
    steps = [(line["stage"], line["step"]) for line in read_stream(folder, "steps.jsonl")]
    assert steps == [(stage, step) for stage in STAGES for step in range(1, 13)]
    assert not list(folder.rglob(".tmp-*"))


@pytest.mark.slow
def test_killed_at_twenty_random_moments_is_uninterrupted(whole, tmp_path):
    """At any moment of the command: while it starts, trains, saves, looks at the test images, writes its report."""
    chance = random.Random(1)
    for _ in range(20):
        process = start("run", *QUICK, cwd=tmp_path, TMPDIR="/dev/shm")
        time.sleep(chance.uniform(0.5, 9.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    stillroom("run", *QUICK, cwd=tmp_path)
    assert_equal_runs(whole, tmp_path / "runs" / "digits")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_how_to_go_on(whole, tmp_path, number, code):
    folder = tmp_path / "runs" / "digits"
    process = start(
        "run", *QUICK, "train.checkpoint_seconds=1000", "teacher.train.checkpoint_seconds=1000", cwd=tmp_path
    )
    wait_for_steps(folder, 5, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code and "the same command resumes" in err and "Traceback" not in err
    info = json.loads((folder / "run.json").read_text())
    assert (info["status"], info["exit_code"], info["resumable"]) == ("stopped", code, True)
    assert info["last_step"] >= 1
    done = stillroom(
        "run", *QUICK, "train.checkpoint_seconds=1000", "teacher.train.checkpoint_seconds=1000", cwd=tmp_path
    )
    assert "resumed at step" in done.stderr
    for stage in STAGES:
        assert same(load_file(whole / f"{stage}.safetensors"), load_file(folder / f"{stage}.safetensors")), stage


def test_done_is_done(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.suffix in (".safetensors", ".json")}
    done = stillroom("run", *QUICK, cwd=whole.parents[1])
    assert "is done already" in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_two_runs_of_one_recipe_are_equal(whole, tmp_path):
    stillroom("run", *QUICK, "--folder", tmp_path / "again", cwd=tmp_path)
    assert_equal_runs(whole, tmp_path / "again")


def test_another_recipe_is_refused_and_nothing_is_lost(whole):
    done = stillroom("run", *QUICK, "train.lr=0.5", "data.val=0.2", cwd=whole.parents[1], code=2)
    assert "SR-C410" in done.stderr
    assert "train.lr: 0.004 there, 0.5 here" in done.stderr and "data.val: 0.15 there, 0.2 here" in done.stderr
    assert (whole / "student.safetensors").is_file()


def test_two_processes_never_share_a_folder(tmp_path):
    process = start("run", *QUICK, "train.steps=100000", cwd=tmp_path)
    try:
        wait_for_steps(tmp_path / "runs" / "digits", 1, process)
        second = stillroom("run", *QUICK, "train.steps=100000", cwd=tmp_path, code=5)
        assert "SR-R510 locked by pid" in second.stderr and str(process.pid) in second.stderr
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 143


def test_changed_images_are_refused(tmp_path):
    """A run that was begun with some images does not go on with others."""
    from kit.images import digit_folders

    digit_folders(tmp_path / "photos", each=12)
    words = ["run", "teacher=resnet8", "student=resnet8", "data=photos/", "train.steps=4", "export=[]", "name=x"]
    process = start(*words, "train.steps=100000", cwd=tmp_path)
    wait_for_steps(tmp_path / "runs" / "x", 2, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    next((tmp_path / "photos" / "3").iterdir()).unlink()
    done = stillroom(*words, "train.steps=100000", cwd=tmp_path, code=2)
    assert "SR-C411" in done.stderr

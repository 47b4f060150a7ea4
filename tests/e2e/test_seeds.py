"""Several seeds through the command: one teacher, a page of the spread, killed and resumed, refused where need be."""

from __future__ import annotations

import json
import signal

import pytest
from click.testing import CliRunner
from kit.command import QUICK, start, stillroom
from kit.resume import assert_equal_runs, wait_for_steps

import stillroom as sr
from stillroom.cli import main
from stillroom.io.run_dir import read_stream

TWO = [*QUICK, "--seeds", "2"]


def trained(folder):
    return list(dict.fromkeys(line["stage"] for line in read_stream(folder, "steps.jsonl")))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two seeds that nobody disturbed, and what was said."""
    folder = tmp_path_factory.mktemp("whole")
    done = stillroom("run", *TWO, "--json", cwd=folder)
    return folder / "runs" / "digits", done


def test_the_teacher_is_trained_once(whole):
    folder, _ = whole
    assert trained(folder / "seed-0") == ["teacher", "baseline", "student"]
    assert trained(folder / "seed-1") == ["baseline", "student"]
    assert (folder / "seed-1" / "teacher.safetensors").samefile(folder / "seed-0" / "teacher.safetensors")
    first, second = (json.loads((folder / f"seed-{seed}" / "run.json").read_text()) for seed in (0, 1))
    assert "teacher_of_seed" not in first and second["teacher_of_seed"] == 0
    assert first["networks"]["teacher"]["weights"] == "trained here"
    assert second["networks"]["teacher"]["weights"] == "trained by the run of seed 0"
    assert first["command"] == second["command"] == "stillroom run runs/digits/recipe.toml"


def test_the_spread_is_that_of_the_runs(whole):
    folder, done = whole
    told = json.loads(done.stdout)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert told == {"folder": "runs/digits", "metrics": metrics}
    single = [json.loads((folder / f"seed-{seed}" / "metrics.json").read_text()) for seed in (0, 1)]
    for role in ("teacher", "baseline", "student"):
        values = [found[role]["accuracy"]["value"] for found in single]
        assert list(metrics[role]["accuracy"]["values"].values()) == values
        assert metrics[role]["accuracy"]["value"] == pytest.approx(sum(values) / 2)
    gains = [found["student"]["accuracy"]["value"] - found["baseline"]["accuracy"]["value"] for found in single]
    assert metrics["gain"]["accuracy"]["value"] == pytest.approx(sum(gains) / 2)
    assert (folder / "report.html").is_file() and "12.7 standard errors" in (folder / "README.md").read_text()


@pytest.mark.slow
def test_the_same_command_opens_what_is_done_and_report_writes_it_again(whole):
    folder, _ = whole
    (folder / "report.html").unlink()
    assert stillroom("report", folder, cwd=folder.parents[1]).stdout.strip() == str(folder / "report.html")
    done = stillroom("run", *TWO, cwd=folder.parents[1])
    assert done.stderr.count("is done already") == 2 and "teaching changed accuracy by" in done.stdout
    assert done.stdout.strip().endswith("runs/digits/report.html")


@pytest.mark.slow
def test_killed_in_the_second_student_and_resumed_is_uninterrupted(whole, tmp_path):
    folder = tmp_path / "runs" / "digits"
    process = start("run", *TWO, cwd=tmp_path)
    wait_for_steps(folder / "seed-1", 12 + 5, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "metrics.json").exists() and not (folder / "seed-1" / "student.safetensors").exists()
    done = stillroom("run", *TWO, cwd=tmp_path)
    assert done.stderr.count("is done already") == 1 and "resumed at step" in done.stderr
    for seed in (0, 1):
        assert_equal_runs(whole[0] / f"seed-{seed}", folder / f"seed-{seed}")
    assert not list(folder.rglob(".tmp-*"))


@pytest.mark.slow
def test_neither_a_file_that_fails_nor_a_second_process_keeps_the_next_seed_from_running(tmp_path):
    short = ["train.steps=3", "teacher.train.steps=3", 'export=[{runtime = "onnx", bits = 8, agreement = 1.0}]']
    done = stillroom("run", *QUICK, *short, "seeds=[1, 2]", "--devices", "2", cwd=tmp_path, code=7)
    assert "SR-X701" in done.stderr and "the other seeds go on" in done.stderr
    folder = tmp_path / "runs" / "digits"
    for seed in (1, 2):
        info = json.loads((folder / f"seed-{seed}" / "run.json").read_text())
        assert info["status"] in ("done", "unverified") and info["hardware"]["processes"] == 2
    metrics, page = json.loads((folder / "metrics.json").read_text()), (folder / "report.html").read_text()
    assert metrics["seeds"] == [1, 2] and not metrics["exports"][0]["verified"]
    for seed in metrics["exports"][0]["unverified_seeds"]:
        assert f"The int8 ONNX file of seed {seed} is UNVERIFIED" in page


def test_from_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = {"train": {"steps": 3, "batch": 32}, "export": [], "teacher": "resnet8", "student": "resnet8"}
    runs = sr.distill(data="digits", seeds=2, name="two", **short)
    assert isinstance(runs, sr.MultiSeedRun) and [run.folder.name for run in runs.runs] == ["seed-0", "seed-1"]
    values = [run.metrics["student"]["accuracy"]["value"] for run in runs.runs]
    assert runs.metrics["student"]["accuracy"]["value"] == pytest.approx(sum(values) / 2)
    assert sr.MultiSeedRun("runs/two").metrics == runs.metrics
    with pytest.raises(sr.StillroomError) as caught:
        sr.open("runs/two")
    assert caught.value.code == "SR-C433" and "runs/two/seed-0" in str(caught.value)


def test_seeds_said_twice_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["run", "digits", "--seeds", "3", "seeds=[1, 2]"])
    assert done.exit_code == 2 and "SR-C430 seeds are given twice: --seeds 3 and seeds=[1, 2]" in done.stderr
    assert CliRunner().invoke(main, ["run", "digits", "--seeds", "0"]).exit_code == 2
    assert not list(tmp_path.iterdir())

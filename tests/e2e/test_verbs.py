"""Each command on the folder of the demo."""

from __future__ import annotations

import json
import shutil

import onnx
import pytest
import torch
from kit.command import stillroom
from kit.images import digit_folders

import stillroom as sr
from stillroom.config.plugins import choices
from stillroom.stages import verify


@pytest.fixture
def finished(demo, tmp_path):
    """A copy of the demo's folder, to change."""
    shutil.copytree(demo.folder, tmp_path / "digits")
    return tmp_path / "digits"


def test_eval_on_its_own_data_repeats_the_metrics_of_the_run(finished, tmp_path):
    found = json.loads(stillroom("eval", finished, "--json", cwd=tmp_path).stdout)
    known = json.loads((finished / "metrics.json").read_text())
    for name in ("teacher", "baseline", "student"):
        assert found[name]["accuracy"] == known[name]["accuracy"]
    assert [row["accuracy"]["value"] for row in found["exports"]] == [
        row["accuracy"]["value"] for row in known["exports"]
    ]


def test_eval_on_other_images(finished, tmp_path):
    digit_folders(tmp_path / "photos", each=20, side=8)
    run = sr.open(finished)
    found = run.evaluate(str(tmp_path / "photos"))
    assert found["student"]["accuracy"]["value"] > 0.9 and found["student"]["accuracy"]["n"] == 200
    digit_folders(tmp_path / "few", each=20, side=8, classes=4)
    with pytest.raises(sr.StillroomError) as caught:
        run.evaluate(str(tmp_path / "few"))
    assert caught.value.code == "SR-M312"


@pytest.mark.parametrize("ask", [lambda run: run.network("studnet"), lambda run: run.evaluate(split="tset")])
def test_a_network_or_split_that_is_not_there(demo, ask):
    with pytest.raises(sr.StillroomError, match=r"student|test") as caught:
        ask(sr.open(demo.folder))
    assert caught.value.code == "SR-C463"


def test_export_adds_a_verified_file_and_its_figures(finished, tmp_path):
    (finished / "exports" / "student-int8.onnx").unlink()
    path = stillroom("export", finished, "--bits", "8", cwd=tmp_path).stdout.strip()
    assert path.endswith("student-int8.onnx")
    onnx.checker.check_model(onnx.load(path))
    rows = json.loads((finished / "metrics.json").read_text())["exports"]
    assert [(row["bits"], row["verified"]) for row in rows] == [(32, True), (8, True)]


def test_a_changed_weight_in_a_file_is_caught(finished):
    run = sr.open(finished)
    (made,) = [made for made in run.files() if made.bits == 32]
    model = onnx.load(made.path)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.raw_data = bytes(reversed(weight.raw_data))
    onnx.save(model, made.path)
    _, verdicts = verify.evaluate_all(
        {"student": run.student}, [made], run.data, run.task, device=torch.device("cpu"), samples=None
    )
    (settled,) = verify.rename_unverified([made], verdicts)
    assert not verdicts[made.name].passed and settled.path.name == "student.unverified.onnx"
    assert verdicts[made.name].failure(settled.path).exit == 7


def test_bench_and_report(finished, tmp_path):
    found = json.loads(stillroom("bench", finished, "--seconds", "0.5", "--json", cwd=tmp_path).stdout)
    assert set(found) == {"teacher", "student", "onnx-32", "onnx-8"}
    assert all(row["latency_ms"]["value"] > 0 and "thread" in row["latency_ms"]["how"] for row in found.values())
    (finished / "report.html").unlink()
    assert stillroom("report", finished, cwd=tmp_path).stdout.strip().endswith("report.html")
    assert (finished / "report.html").is_file()


def test_list(tmp_path):
    assert "hinton" in stillroom("list", "methods", cwd=tmp_path).stdout
    found = json.loads(stillroom("list", "sources", "--json", cwd=tmp_path).stdout)
    assert sorted(found) == choices("data/sources") and all(found.values())
    assert "timm/test_vit" in stillroom("list", "students", "test_vit", cwd=tmp_path).stdout
    assert "digits" in stillroom("list", "recipes", cwd=tmp_path).stdout


def test_check_shows_data_losses_and_gradients(tmp_path):
    out = stillroom("check", "digits", cwd=tmp_path).stdout
    for word in (
        "10 classes, 669 train, 269 val, 359 test, 500 teacher",
        "of the teacher's MACs",
        "task/ce",
        "hinton/kl",
        "gradient",
    ):
        assert word in out
    assert not list(tmp_path.iterdir())


def test_doctor(tmp_path):
    found = json.loads(stillroom("doctor", "--json", cwd=tmp_path).stdout)
    assert "torch" in found["packages"] and "GB free" in found["disk"] and found["torchvision"].endswith("fits torch")


def test_the_five_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = {"steps": 20, "batch": 32}
    run = sr.distill(teacher="resnet14", student="resnet8", data="digits", methods=["hinton"], train=train, export=[])
    assert run.metrics["student"]["accuracy"]["value"] > 0.1 and run.metrics["teacher"]["accuracy"]["n"] == 359
    assert run.export("onnx", bits=32).is_file()
    assert run.report().is_file() and run.folder.name == "digits-resnet8-from-resnet14"
    again = sr.distill(teacher="resnet14", student="resnet8", data="digits", methods=["hinton"], train=train, export=[])
    assert again.metrics == run.metrics


def test_own_code_beside_the_recipe(tmp_path):
    """`package.module:Name` works for a network and for a method, from the folder one is in."""
    (tmp_path / "mine.py").write_text(
        """
from torch import nn
from stillroom.methods.method import Method

class Net(nn.Sequential):
    def __init__(self, classes, width=8):
        super().__init__(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, classes))

class Closer(Method):
    '''Squared distance of logits.'''
    weight = 0.5
    def loss(self, student, teacher, batch, progress):
        return {"mse": (student.pred - teacher.pred).square().mean()}
"""
    )
    words = ["run", "data=digits", "data.size=8", "teacher=resnet8", "student=mine:Net", "student.width=16"]
    stillroom(*words, "methods=mine:Closer", "train.steps=4", "export=[]", "name=own", cwd=tmp_path)
    line = (tmp_path / "runs" / "own" / "steps.jsonl").read_text().splitlines()[-1]
    assert "closer/mse" in json.loads(line)["terms"]

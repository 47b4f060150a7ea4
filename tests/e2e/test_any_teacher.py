"""Teachers that are not made here, through the command: an ONNX file, backbones of Hugging Face from a local folder."""

from __future__ import annotations

import json
import shutil

import pytest
from kit.command import stillroom
from kit.hub import saved

import stillroom as sr

SHORT = [
    "data=digits",
    "student=resnet8",
    "student.width=0.5",
    "train.steps=6",
    "train.num_evals=2",
    "train.batch=32",
    "train.precision=float32",
]


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def taught(demo, tmp_path_factory):
    """A run whose teacher is the file that the demo exported; the file has moved when the run is over."""
    folder = tmp_path_factory.mktemp("onnx")
    shutil.copy(demo.folder / "exports" / "student.onnx", folder / "teacher.onnx")
    words = ["teacher=onnx", "teacher.weights=teacher.onnx", "methods=auto", "export=[{bits = 32}]", "name=small"]
    done = stillroom("run", *words, *SHORT, cwd=folder, OMP_NUM_THREADS="1")
    return folder, done.stdout + done.stderr


def test_a_file_that_was_exported_here_teaches_the_next_student(taught, demo):
    folder, _ = taught
    found, before = metrics(folder / "runs" / "small"), metrics(demo.folder)
    assert found["teacher"]["macs"]["value"] == before["student"]["macs"]["value"]
    assert found["teacher"]["accuracy"]["value"] == pytest.approx(before["student"]["accuracy"]["value"], abs=0.01)
    assert found["teacher"]["latency_ms"]["value"] > 0 and found["exports"][0]["verified"]
    assert 0 < found["teacher"]["parameters"]["value"] <= before["student"]["parameters"]["value"]
    assert not (folder / "runs" / "small" / "weights" / "teacher.safetensors").exists()
    run = json.loads((folder / "runs" / "small" / "run.json").read_text())
    assert run["status"] == "done" and run["networks"]["teacher"]["weights"] == "teacher.onnx"


@pytest.mark.slow
def test_the_run_opens_and_is_judged_and_timed_again_from_anywhere(taught):
    folder = taught[0] / "runs" / "small"
    finished, told = sr.open(folder), metrics(folder)
    assert finished.evaluate()["teacher"]["accuracy"]["value"] == told["teacher"]["accuracy"]["value"]
    assert finished.bench(seconds=0.1)["teacher"]["latency_ms"]["value"] > 0
    assert finished.report().is_file()
    said = stillroom("eval", "runs/small", cwd=taught[0]).stdout
    assert "teacher" in said


def test_what_a_file_cannot_do_is_said_before_anything_is_trained(taught):
    folder, _ = taught
    onnx = ["teacher=onnx", "teacher.weights=teacher.onnx"]
    for words, code, text in (("teacher.finetune=head", 2, "SR-M361"), ('methods=["fitnet"]', 4, "SR-M333")):
        done = stillroom("check", *onnx, *SHORT, words, cwd=folder, code=code)
        assert text in done.stderr + done.stdout


@pytest.mark.slow
def test_a_backbone_of_the_hub_gets_a_head_and_teaches_with_its_features(tmp_path):
    pytest.importorskip("transformers")
    saved("dinov3", tmp_path / "backbone", image_mean=[0.5] * 3, image_std=[0.5] * 3, size=56)
    words = ["teacher=huggingface/backbone", 'methods=["hinton", "fitnet"]', "export=[]", "name=headed"]
    stillroom("run", *words, *SHORT, cwd=tmp_path, OMP_NUM_THREADS="1")
    folder = tmp_path / "runs" / "headed"
    found, run = metrics(folder), json.loads((folder / "run.json").read_text())
    assert found["teacher"]["accuracy"]["value"] > 0.5
    assert all("model.layer" in pair for pair in run["lessons"]["pairs"]["fitnet"])
    stillroom("eval", "runs/headed", cwd=tmp_path)


def test_features_alone_teach_an_embedding(tmp_path):
    pytest.importorskip("transformers")
    saved("dinov2_registers", tmp_path / "backbone", image_mean=[0.5] * 3, image_std=[0.5] * 3, size=56)
    words = ["task=embedding", "teacher=huggingface/backbone", 'methods=["cosine", "fitnet"]', "export=[]", "name=e"]
    stillroom("run", *words, *SHORT, cwd=tmp_path, OMP_NUM_THREADS="1")
    found = metrics(tmp_path / "runs" / "e")
    assert 0 < found["student"]["knn"]["value"] <= 1 and found["teacher"]["knn"]["value"] > 0.3

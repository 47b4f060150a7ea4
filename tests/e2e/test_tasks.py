"""The whole line for each task besides classification, through the command, on real digits in scenes."""

from __future__ import annotations

import json
import signal

import numpy as np
import onnxruntime
import pytest
import torch
from kit.boxes import assert_same_boxes
from kit.command import start, stillroom
from kit.images import digit_folders
from kit.resume import assert_equal_runs, wait_for_steps
from kit.scenes import coco_scenes, mask_scenes
from safetensors.torch import load_file, save_file

import stillroom as sr
from stillroom.models import create_model
from stillroom.tasks.predictor import Predictor

QUICK = [
    "train.steps=8",
    "train.num_evals=2",
    "train.batch=8",
    "train.precision=float32",
    "teacher.train.precision=float32",
    "export=[{bits = 32}, {bits = 8, agreement = 0.0}]",  # eight steps leave close calls; the float file has its gate
]
HEADLINES = {"segmentation": "miou", "detection": "map", "embedding": "knn"}
OUTPUTS = {"segmentation": "logits", "detection": "boxes", "embedding": "vector"}


def words(task, folder):
    """A recipe in words: two small networks of one kind, every method that `auto` takes."""
    nets = [
        "teacher=timm/test_resnet",
        "student=timm/test_efficientnet",
        "methods=auto",
        f"task={task}",
        f"name={task}",
    ]
    if task == "segmentation":
        mask_scenes(folder / "scenes", images=24)
    if task == "detection":
        coco_scenes(folder / "scenes", images=24)
        nets += ["teacher.decoder=fcos", "student.decoder=fcos", "teacher.width=16", "student.width=8"]
    if task == "embedding":
        digit_folders(folder / "scenes", each=8, side=32)
        torch.manual_seed(0)
        module = create_model("timm/test_resnet", classes=10, channels=3, size=32).module
        save_file(module.state_dict(), folder / "teacher.safetensors")
        return [*nets, "data=scenes/", "data.channels=3", "teacher.weights=teacher.safetensors", *QUICK]
    return [*nets, "data=scenes/", "teacher.weights=none", "teacher.train.steps=12", *QUICK]


@pytest.fixture(scope="module", params=sorted(HEADLINES))
def done(request, tmp_path_factory):
    """Task, run folder."""
    folder = tmp_path_factory.mktemp(request.param)
    stillroom("run", *words(request.param, folder), cwd=folder)
    return request.param, folder / "runs" / request.param


def test_every_network_and_file_has_its_figures(done):
    task, folder = done
    metrics, run = json.loads((folder / "metrics.json").read_text()), json.loads((folder / "run.json").read_text())
    headline = HEADLINES[task]
    assert (run["status"], run["task"]["name"], run["task"]["headline"]) == ("done", task, headline)
    for name in ("teacher", "baseline", "student"):
        assert 0 <= metrics[name][headline]["value"] <= 1 and metrics[name][headline]["n"] > 0
    assert 0 <= metrics["student"]["agreement"]["value"] <= 1
    assert [(row["bits"], row["verified"]) for row in metrics["exports"]] == [(32, True), (8, True)]
    assert metrics["exports"][0]["agreement"]["value"] >= 0.99
    assert metrics["exports"][0][headline]["value"] == pytest.approx(metrics["student"][headline]["value"], abs=0.02)


def test_the_report_and_the_card_speak_of_the_task(done):
    task, folder = done
    run, page = json.loads((folder / "run.json").read_text()), (folder / "report.html").read_text()
    assert run["task"]["title"] in page and 'src="http' not in page
    card = (folder / "README.md").read_text()
    assert run["task"]["tag"] in card and run["task"]["noun"] in card
    images = json.loads((folder / "samples" / "probe.json").read_text())["images"]
    drawn = {"segmentation": "mask", "detection": "boxes", "embedding": "vector"}[task]
    assert images and all(drawn in image["answers"]["student"] for image in images)


def test_a_finished_run_opens_and_is_judged_again(done):
    task, folder = done
    metrics = json.loads((folder / "metrics.json").read_text())
    finished = sr.open(folder)
    again = finished.evaluate()
    headline = HEADLINES[task]
    assert again["student"][headline]["value"] == pytest.approx(metrics["student"][headline]["value"], abs=1e-6)
    saved = load_file(folder / "samples" / "predictions.safetensors")
    assert len(saved["key"]) == len(saved["student.score"]) == len(finished.data.splits["test"])


def test_a_finished_run_is_judged_on_other_images(done, tmp_path):
    task, folder = done
    if task == "segmentation":
        mask_scenes(tmp_path / "other", images=12, seed=1)
    elif task == "detection":
        coco_scenes(tmp_path / "other", images=12, seed=1)
    else:
        digit_folders(tmp_path / "other", each=4, side=32)
    found = sr.open(folder).evaluate(str(tmp_path / "other"))
    assert 0 <= found["student"][HEADLINES[task]]["value"] <= 1
    assert found["student"][HEADLINES[task]]["n"] == (40 if task == "embedding" else 12)


def test_the_file_answers_as_the_network_does_at_any_size(done):
    """Trained on squares of one size; asked about images twice as wide as high."""
    task, folder = done
    finished = sr.open(folder)
    session = onnxruntime.InferenceSession(folder / "exports" / "student.onnx", providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == [OUTPUTS[task]]
    images = torch.stack([finished.data.splits["val"].images(np.array([0]))[0].float() / 255] * 2)
    if task != "embedding":
        images = torch.nn.functional.interpolate(images, (50, 110))
    with torch.no_grad():
        expected = Predictor(finished.student, finished.task).eval()(images).pred
    said = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    if task != "detection":
        torch.testing.assert_close(said, expected, atol=2e-3, rtol=1e-3)
    else:
        assert_same_boxes(said, expected, pixels=0.1)
        there = said[..., 5] >= 0
        assert there.any() and said[..., 2][there].max() > 64  # wider than the squares it was trained on
        assert (said[..., :4][there] >= 0).all()
        assert (said[..., 2][there] <= 110 + 1e-3).all() and (said[..., 3][there] <= 50 + 1e-3).all()


def test_labels_of_another_kind_are_refused(tmp_path):
    mask_scenes(tmp_path / "scenes", images=12)
    told = stillroom(
        "check",
        "data=scenes/",
        "task=detection",
        "teacher=timm/test_resnet",
        "student=timm/test_vit",
        cwd=tmp_path,
        code=3,
    )
    assert "SR-D118 the task detection needs boxes, and the source has masks" in told.stderr


def test_a_missing_package_is_named_before_anything_is_trained(tmp_path):
    coco_scenes(tmp_path / "scenes", images=12)
    (tmp_path / "hide").mkdir()
    hidden = (
        "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: None if 'coco' in n else f(n, *a)"
    )
    (tmp_path / "hide" / "sitecustomize.py").write_text(hidden)
    nets = ["teacher=timm/test_resnet", "teacher.weights=none", "student=timm/test_resnet", "name=bare"]
    told = stillroom(
        "run", "data=scenes/", "task=detection", *nets, cwd=tmp_path, code=4, fresh=True, PYTHONPATH="hide"
    )
    assert "SR-X710" in told.stderr and "pip install 'stillroom[detect]'" in told.stderr
    assert not list((tmp_path / "runs" / "bare").glob("checkpoints/*"))


def test_a_method_of_other_predictions_is_refused(tmp_path):
    coco_scenes(tmp_path / "scenes", images=12)
    nets = ["teacher=timm/test_resnet", "teacher.weights=none", "student=timm/test_resnet"]
    told = stillroom("check", "data=scenes/", "task=detection", *nets, "methods=hinton", cwd=tmp_path, code=2)
    assert "SR-C400" in told.stderr and 'methods = "auto"' in told.stderr


@pytest.mark.parametrize(
    "task", ["embedding", *(pytest.param(one, marks=pytest.mark.slow) for one in ("detection", "segmentation"))]
)
def test_killed_and_resumed_is_uninterrupted(task, tmp_path):
    """Boxes, masks and metrics that keep rows come through a kill as labels do: bit for bit."""
    folders = tmp_path / "whole", tmp_path / "killed"
    for folder in folders:
        folder.mkdir()
        often = ["train.checkpoint_seconds=0", "teacher.train.checkpoint_seconds=0"]
        said = ["run", *words(task, folder), *often, "export=[]"]
        if folder.name == "killed":
            process = start(*said, cwd=folder)
            wait_for_steps(folder / "runs" / task, 5, process)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        stillroom(*said, cwd=folder)
    assert_equal_runs(*(folder / "runs" / task for folder in folders))

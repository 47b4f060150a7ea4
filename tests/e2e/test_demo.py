"""The embedded default, through the command: all that a newcomer gets, and the figures that it promises."""

from __future__ import annotations

import json
import re

import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

import stillroom
from stillroom.data.sources.digits import Digits
from stillroom.models import create_model

FIGURES = {"accuracy", "recall", "parameters", "macs", "bytes"}
TIMES = {"latency_ms", "latency_p95_ms", "throughput"}


@pytest.fixture(scope="module")
def metrics(demo):
    return json.loads((demo.folder / "metrics.json").read_text())


def test_leaves_everything(demo):
    names = {path.relative_to(demo.folder).as_posix() for path in demo.folder.rglob("*") if path.is_file()}
    assert names >= {
        "run.json",
        "recipe.toml",
        "steps.jsonl",
        "evals.jsonl",
        "metrics.json",
        "report.html",
        "README.md",
        "run.log",
        "teacher.safetensors",
        "baseline.safetensors",
        "student.safetensors",
        "exports/student.onnx",
        "exports/student-int8.onnx",
        "samples/probe.json",
        "samples/predictions.safetensors",
    }
    assert not [name for name in names if ".tmp-" in name or "unverified" in name]
    info = json.loads((demo.folder / "run.json").read_text())
    assert (info["status"], info["exit_code"], info["resumable"]) == ("done", 0, False)


def test_student_keeps_97_percent_at_a_tenth_of_the_macs(metrics):
    assert metrics["student"]["accuracy"]["value"] >= 0.97 * metrics["teacher"]["accuracy"]["value"]
    assert metrics["student"]["macs"]["value"] <= 0.1 * metrics["teacher"]["macs"]["value"]
    assert metrics["teacher"]["accuracy"]["value"] > 0.95


def test_int8_is_verified_and_three_times_smaller(demo, metrics):
    whole, small = metrics["exports"]
    assert (whole["bits"], small["bits"]) == (32, 8)
    assert whole["verified"] and small["verified"]
    sizes = [(demo.folder / row["path"]).stat().st_size for row in (whole, small)]
    assert sizes[0] >= 3 * sizes[1]
    assert [row["bytes"]["value"] for row in (whole, small)] == sizes


def test_every_figure_says_how(metrics):
    for name in ("teacher", "baseline", "student"):
        assert metrics[name].keys() >= FIGURES
        figures = {key: figure for key, figure in metrics[name].items() if key != "front"}  # which is yes or no
        assert all({"value", "how"} <= figure.keys() for figure in figures.values())
        low, high = metrics[name]["accuracy"]["ci95"]
        assert low <= metrics[name]["accuracy"]["value"] <= high and metrics[name]["accuracy"]["n"] == 359
    assert metrics["teacher"].keys() >= TIMES and metrics["student"].keys() >= TIMES | {"agreement"}
    for row in metrics["exports"]:
        assert row.keys() >= {"target", "bits", "path", "bytes", "accuracy", "agreement", "latency_ms", "verified"}
        assert {"value", "ci95", "n", "how"} <= row["accuracy"].keys()


def test_figures_are_those_of_the_files(demo, metrics):
    """Nothing in metrics.json is taken on trust: weights and files are run again, here, by other means."""
    source = Digits()
    saved = load_file(demo.folder / "samples" / "predictions.safetensors")
    pixels = torch.stack([torch.from_numpy(source.read(int(key))).float() / 255 for key in saved["key"]])[:, None]
    assert torch.equal(saved["target"], torch.from_numpy(source.labels)[saved["key"]])
    network = create_model("resnet8", classes=10, channels=1, size=8)
    reopened = stillroom.open(demo.folder)
    network.module.load_state_dict(load_file(demo.folder / "student.safetensors"))
    network.set_pixel_statistics(reopened.student.mean.flatten().tolist(), reopened.student.std.flatten().tolist())
    with torch.no_grad():
        student = network.eval()(pixels).pred.argmax(1)
    assert torch.equal(student, saved["student"])
    for row in metrics["exports"]:
        session = onnxruntime.InferenceSession(demo.folder / row["path"], providers=["CPUExecutionProvider"])
        said = torch.from_numpy(session.run(None, {"images": pixels.numpy()})[0]).argmax(1)
        assert (said == student).float().mean().item() == pytest.approx(row["agreement"]["value"])
        assert (said == saved["target"]).float().mean().item() == pytest.approx(row["accuracy"]["value"])
    for name in ("teacher", "baseline", "student"):
        share = (saved[name] == saved["target"]).double().mean().item()
        assert metrics[name]["accuracy"]["value"] == pytest.approx(share)


def test_report_is_one_file_that_shows_all_three(demo):
    page = (demo.folder / "report.html").read_text()
    assert not re.search(r"""(src|href)=["']?https?:""", page)
    for role in ("teacher", "baseline", "student", "file"):
        assert f'<tr role="row" class="{role}">' in page
    assert "int8" in page
    card = (demo.folder / "README.md").read_text()
    assert card.startswith("---") and "student.safetensors" in card and "onnxruntime" in card


def test_the_saved_recipe_gives_the_same_recipe(demo):
    read = stillroom.read_recipe(demo.folder / "recipe.toml")
    assert read.toml() == (demo.folder / "recipe.toml").read_text()


def test_the_table_is_printed(demo):
    for word in ("teacher", "baseline", "student", "onnx, int8", "verified", "report.html"):
        assert word in demo.stdout

"""`stillroom export` refuses what it can't stand for, each thing with its own code, and the run stays as it was."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from functools import partial
from importlib.machinery import ModuleSpec

import numpy as np
import onnx as library
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper

from stillroom.benchmark import networks
from stillroom.cli import main
from stillroom.export import runtime
from stillroom.export.onnx import ONNX
from stillroom.models.resnet import CifarResNet
from stillroom.pipeline import after

WRITE = ONNX.write


def said(*words, code):
    """The command, in this process: what it printed on stderr."""
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == code, (done.output, done.exception)
    assert "Traceback" not in done.output
    return done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run in a second or two, nothing exported."""
    home = tmp_path_factory.mktemp("home")
    words = ["data=digits", "teacher=resnet8", "student=resnet8", "baseline=false", "train.steps=40", "export=[]"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        said("run", *words, "name=small", "-q", code=0)
    return home / "runs" / "small"


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy of it to change; how fast and how big files are is not the matter here, and takes its time."""
    monkeypatch.setattr(after, "time_all", partial(networks.time_all, seconds=0.05))
    monkeypatch.setattr(after, "measure_alone", lambda *_, **__: {})
    return shutil.copytree(finished, tmp_path / "small")


def rows(run):
    return json.loads((run / "metrics.json").read_text())["exports"]


def files(run):
    return sorted(path.name for path in (run / "exports").iterdir()) if (run / "exports").is_dir() else []


def test_a_good_file_passes(run):
    said("export", run, code=0)
    assert files(run) == ["student.onnx"] and rows(run)[0]["verified"] is True


def test_a_perturbed_weight_is_caught(run, monkeypatch):
    def perturbed(self, network, path, **arguments):
        WRITE(self, network, path, **arguments)
        model = library.load(path)
        tensor = next(t for t in model.graph.initializer if len(t.dims) == 4)
        value = numpy_helper.to_array(tensor).copy()
        value[0] = -3 * np.abs(value).max()
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        library.save(model, path)
        return path

    monkeypatch.setattr(ONNX, "write", perturbed)
    text = said("export", run, code=7)
    assert "SR-X701 agreement" in text and "SR-X741" not in text
    assert files(run) == ["student.unverified.onnx"] and rows(run)[0]["verified"] is False


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda images: images / 255, ["0..255"]),
        (lambda images: images * 2 - 1, ["mean 0.5 and std 0.5", "normalises once more"]),
    ],
    ids=["range", "twice"],
)
def test_a_wrong_preprocessing_is_told_as_such(run, monkeypatch, change, words):
    class Wrong(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = deepcopy(network)

        def forward(self, images):
            return self.network(change(images))

    def wrong(self, network, path, **arguments):
        return WRITE(self, Wrong(network), path, **arguments)

    monkeypatch.setattr(ONNX, "write", wrong)
    text = said("export", run, code=7)
    assert "SR-X741 wrong preprocessing" in text and all(word in text for word in words)
    assert files(run) == ["student.unverified.onnx"]


@pytest.mark.parametrize("name", ["onnx", "openvino", "executorch"])
def test_an_operator_that_the_target_has_not_got(run, monkeypatch, name):
    pytest.importorskip(name, reason=f"needs the package {name}")
    speak = CifarResNet.forward
    monkeypatch.setattr(CifarResNet, "forward", lambda self, images: torch.special.bessel_j0(speak(self, images)))
    text = said("export", run, "--runtime", name, code=7)
    assert "SR-X730" in text and "bessel_j0" in text
    assert files(run) == [] and rows(run) == []


@pytest.mark.parametrize(
    ("name", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino"), ("executorch", "executorch")]
)
def test_a_missing_runtime_is_named(run, monkeypatch, name, package):
    there = runtime.find_spec

    def hidden(asked: str) -> ModuleSpec | None:
        return None if asked == package else there(asked)

    monkeypatch.setattr(runtime, "find_spec", hidden)
    text = said("export", run, "--runtime", name, code=7)
    assert "SR-X702" in text and f"pip install {package}" in text.replace("\n", " ")
    assert files(run) == [] and rows(run) == []


def test_four_bits_on_a_target_without_them(run):
    pytest.importorskip("executorch", reason="needs the package executorch")
    assert "SR-X731" in said("export", run, "--runtime", "executorch", "--bits", "4", code=7)

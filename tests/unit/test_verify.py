"""The gate: values by hand, the name a file earns, and a fault in any weight is caught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx as library
import pytest
import torch
from kit.verdict import verify
from onnx import numpy_helper
from sklearn.datasets import load_digits
from torch import Tensor

from stillroom.errors import Exit
from stillroom.export._verify import Verification, mark_unverified
from stillroom.export.onnx import ONNX
from stillroom.metrics.measurement import Measurement, wilson
from stillroom.models.network import Network
from stillroom.models.resnet import CifarResNet

onnx, load = ONNX().write, ONNX().open

LOG = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]]).log()
OTHER = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.5, 0.1, 0.4], [0.6, 0.3, 0.1]]).log()


def test_values_by_hand() -> None:
    found = verify(LOG, OTHER, gate=0.75)
    assert (found.agreement, found.figure.n, found.passed) == (3 / 4, 4, True)
    assert found.max_difference == pytest.approx(0.2, abs=1e-6)
    figures = found.figures()
    assert figures["agreement"].ci95 == wilson(3, 4)
    assert figures["max_difference"].value == found.max_difference
    assert figures["agreement"].extra["mean_difference"] == pytest.approx(0.6 / 12, abs=1e-6)


def test_a_task_may_have_no_probabilities() -> None:
    found = Verification(figure=Measurement(value=0.99, how="of boxes", n=7), gate=0.98)
    assert found.passed and found.max_difference is None and set(found.figures()) == {"agreement"}
    failed = Verification(figure=Measurement(value=0.5, how="of boxes", n=7), gate=0.98)
    assert failed.failure(Path("m.onnx")).what == "agreement 50.0% < 98.0% on 7 images   m.onnx"


def test_equal_answers_pass_the_strictest_gate() -> None:
    assert verify(LOG, LOG.clone(), gate=1.0, tolerance=0.0).passed


def test_logits_may_be_shifted_but_not_moved_apart() -> None:
    assert verify(LOG, LOG + 5, gate=1.0, tolerance=1e-6).passed
    apart = verify(LOG, LOG * 3, gate=1.0, tolerance=0.01)
    assert apart.agreement == 1 and not apart.passed


def test_below_the_gate() -> None:
    found = verify(LOG, OTHER, gate=0.995)
    failure = found.failure(Path("exports/m.unverified.onnx"))
    assert not found.passed
    assert (failure.code, failure.exit) == ("SR-X701", Exit.UNVERIFIED)
    assert failure.what == "agreement 75.0% < 99.5% on 4 images (max abs Δp 0.2)   exports/m.unverified.onnx"


def test_beyond_the_tolerance() -> None:
    failure = verify(LOG, LOG * 3, gate=0.9, tolerance=0.01).failure(Path("m.onnx"))
    assert failure.what.startswith("max abs Δp 0.") and "> 0.01 on 4 images (agreement 100.0%)" in failure.what


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_a_number_agrees_with_nothing(wrong: float) -> None:
    spoilt = LOG.clone()
    spoilt[1, 1] = wrong  # the class that would have been right
    found = verify(LOG, spoilt, gate=0.9)
    assert (found.agreement, found.max_difference, found.passed) == (3 / 4, 1.0, False)
    assert verify(spoilt, spoilt, gate=0.9).agreement == 3 / 4


def test_the_name_is_the_verdict(tmp_path: Path) -> None:
    path = tmp_path / "model-int8.onnx"
    path.write_bytes(b"weights")
    assert mark_unverified(path, verify(LOG, LOG, gate=1.0)) == path and path.exists()
    failed = mark_unverified(path, verify(LOG, OTHER, gate=1.0))
    assert failed == tmp_path / "model-int8.unverified.onnx"
    assert failed.read_bytes() == b"weights" and not path.exists()


def digits(start: int, stop: int) -> Tensor:
    return torch.tensor(load_digits().images[start:stop, None] / 16, dtype=torch.float32)


def test_a_fault_in_any_one_weight_is_caught(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Network(CifarResNet(depth=8, channels=1), classes=10, channels=1, mean=(0.3,), std=(0.35,))
    for _ in range(5):
        network(digits(0, 256))
    images = digits(600, 900)
    path = onnx(network, tmp_path / "m.onnx", example=images, classes=tuple("0123456789"))
    with torch.no_grad():
        expected = network.eval()(images).pred
    assert verify(expected, load(path)(images).pred, gate=0.995, tolerance=0.01).passed
    model = library.load(path)
    weights = [tensor for tensor in model.graph.initializer if np.prod(tensor.dims) >= 100]
    assert len(weights) >= 8  # seven convolutions and the classifier
    for tensor in weights:
        kept = tensor.SerializeToString()
        values = numpy_helper.to_array(tensor).copy()
        values[0] *= -1  # one output channel of one layer
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        spoilt = tmp_path / "spoilt.onnx"
        library.save(model, spoilt)
        found = verify(expected, load(spoilt)(images).pred, gate=0.995, tolerance=0.01)
        assert not found.passed, tensor.name
        tensor.ParseFromString(kept)
    library.save(model, tmp_path / "whole.onnx")
    assert verify(expected, load(tmp_path / "whole.onnx")(images).pred, gate=1.0, tolerance=1e-4).passed

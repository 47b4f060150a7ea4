"""OpenVINO's files: the same integers as the ONNX file, in plain floats, and nobody is told of it."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx as library
import pytest
import torch
from kit.verdict import verify
from onnx import numpy_helper
from sklearn.datasets import load_digits
from torch import Tensor, nn

from stillroom.errors import Exit, StillroomError
from stillroom.export import runtime
from stillroom.export.onnx import ONNX
from stillroom.export.openvino import OpenVINO
from stillroom.models.network import Network
from stillroom.models.resnet import CifarResNet
from stillroom.types import Output

onnx, openvino, load = ONNX().write, OpenVINO().write, OpenVINO().open

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")

CLASSES = ("a plain one", 'with "quotes" & <brackets>', "größer", "[3]", *"456789")


def digits(start: int, stop: int) -> Tensor:
    return torch.tensor(load_digits().images[start:stop, None] / 16, dtype=torch.float32)


class Made(NamedTuple):
    network: Network
    onnx: dict[int, Path]
    openvino: dict[int, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> Made:
    torch.manual_seed(0)
    network = Network(CifarResNet(depth=8, channels=1), classes=10, channels=1, size=12, mean=(0.3,), std=(0.35,))
    for _ in range(5):
        network(digits(0, 256))
    network.eval()
    folder = tmp_path_factory.mktemp("openvino")
    found = Made(network, {}, {})
    for bits in (32, 8):
        asked: Any = {"example": digits(0, 1), "classes": CLASSES, "bits": bits, "base": found.onnx.get(32)}
        asked["calibration"] = [digits(0, 200)] if bits == 8 else ()
        found.onnx[bits] = onnx(network, folder / f"{bits}.onnx", **asked)
        found.openvino[bits] = openvino(network, folder / f"{bits}.xml", **asked | {"base": found.onnx[32]})
    return found


def test_floats_are_floats(made: Made) -> None:
    """bfloat16 would be off by a hundredth."""
    images = digits(300, 500)
    with torch.no_grad():
        expected = made.network(images).pred
    assert (load(made.openvino[32], threads=1)(images).pred - expected).abs().max() < 1e-4


def test_integers_are_those_of_the_onnx_file(made: Made) -> None:
    """Number by number: weights, biases, scales and zero points. How a runtime rounds between layers is its own."""
    from stillroom.export.openvino import _library

    graph = library.load(made.onnx[8]).graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    unpacks = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    named = {name for node in unpacks for name in node.input if name in held}
    operations = _library().Core().read_model(made.openvino[8]).get_ordered_ops()
    found = {op.get_friendly_name(): op.data for op in operations if op.get_type_name() == "Constant"}
    assert (
        sum(held[name].dtype == np.int8 and held[name].ndim > 1 for name in named) == 8
    )  # seven convolutions, one head
    for name in named:
        assert found[name].dtype == held[name].dtype and np.array_equal(found[name], held[name]), name


def test_integers_decide_as_in_onnxruntime(made: Made) -> None:
    """All but close calls: the network is untrained, and eight bits move its logits by up to a twelfth."""
    images = digits(300, 500)
    best = ONNX().open(made.onnx[32], threads=1)(images).pred.topk(2).values
    clear = best[:, 0] - best[:, 1] > 0.25
    ours, theirs = load(made.openvino[8], threads=1), ONNX().open(made.onnx[8], threads=1)
    verdict = verify(theirs(images).pred[clear], ours(images).pred[clear], gate=1.0, tolerance=0.05)
    assert verdict.passed and clear.sum() > 80
    assert ours.facts == theirs.facts


def test_weights_lie_in_the_file_as_integers(made: Made) -> None:
    sizes = {bits: path.with_suffix(".bin").stat().st_size for bits, path in made.openvino.items()}
    assert sizes[8] < sizes[32] * 0.35


def test_what_it_says_of_itself_survives_any_character(made: Made) -> None:
    assert load(made.openvino[32]).classes == CLASSES
    said = ElementTree.parse(made.openvino[32]).getroot().find("rt_info/model_info/labels")
    assert said is not None and said.attrib["value"].split(" ")[0] == "a_plain_one"
    assert len(said.attrib["value"].split(" ")) == len(CLASSES)


def test_a_fault_in_any_one_weight_is_caught(made: Made, tmp_path: Path) -> None:
    images = digits(600, 900)
    with torch.no_grad():
        expected = made.network(images).pred
    graph, weights = tmp_path / "m.xml", made.openvino[32].with_suffix(".bin").read_bytes()
    graph.write_bytes(made.openvino[32].read_bytes())
    places = [layer.find("data") for layer in ElementTree.parse(graph).iter("layer") if layer.get("type") == "Const"]
    floats = [place.attrib for place in places if place is not None and place.get("element_type") == "f32"]
    large = [place for place in floats if int(place["size"]) >= 400]
    assert len(large) >= 8  # seven convolutions and the classifier
    for place in large:
        spoilt = bytearray(weights)
        start, size = int(place["offset"]), int(place["size"])
        first = size // int(place["shape"].split(",")[0])  # one output channel of one layer
        turned = -np.frombuffer(weights[start : start + first], np.float32)
        spoilt[start : start + first] = turned.tobytes()
        graph.with_suffix(".bin").write_bytes(spoilt)
        said = load(graph, threads=1)(images).pred
        assert not verify(expected, said, gate=0.995, tolerance=0.01).passed, place
    graph.with_suffix(".bin").write_bytes(weights)
    assert verify(expected, load(graph, threads=1)(images).pred, gate=1.0, tolerance=1e-4).passed


def test_four_bits_are_those_of_the_onnx_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    network = Network(body, classes=10, channels=1).eval()
    asked: Any = {"example": digits(0, 1), "classes": CLASSES, "bits": 4}
    theirs = ONNX().open(onnx(network, tmp_path / "m.onnx", **asked), threads=1)(digits(0, 50)).pred
    ours = load(openvino(network, tmp_path / "m.xml", **asked), threads=1)(digits(0, 50)).pred
    assert (ours - theirs).abs().max() < 1e-5
    assert (ours - network(digits(0, 50)).pred).abs().max() > 1e-3  # rounded, both of them


def test_images_of_any_size(tmp_path: Path) -> None:
    from stillroom.tasks.segmentation import Segmentation

    network = Network(nn.Conv2d(1, 10, 3, padding=1), classes=10, channels=1, output_kind="pixels").eval()
    task = Segmentation()
    found = load(openvino(network, tmp_path / "m.xml", example=digits(0, 1), classes=CLASSES, task=task))
    images = torch.rand(2, 1, 11, 23)
    with torch.no_grad():
        assert (found(images).pred - network(images).pred).abs().max() < 1e-4
    assert "H, W]" in found.facts["input"]


class Bessel(nn.Module):
    """No exporter has this one."""

    def forward(self, images: Tensor, taps: tuple[str, ...] = ()) -> Output:
        return Output(pred=torch.special.bessel_j0(images).flatten(1)[:, :2])


def test_what_cannot_be_exported_says_so_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.xml"
    path.write_bytes(b"an earlier export")
    with pytest.raises(StillroomError) as caught:
        openvino(Bessel(), path, example=digits(0, 1), classes=("a", "b"))
    assert caught.value.code in ("SR-X730", "SR-X703") and caught.value.exit == Exit.UNVERIFIED
    assert caught.value.what.endswith(f"{path}") and "openvino, 32 bits" in caught.value.what
    assert path.read_bytes() == b"an earlier export" and list(tmp_path.iterdir()) == [path]


def test_it_needs_its_own_suffix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.xml"):
        openvino(nn.Identity(), tmp_path / "m.onnx", example=digits(0, 1), classes=CLASSES)


@pytest.mark.parametrize("missing", [".bin", ".xml"])
def test_a_broken_pair_is_refused(made: Made, tmp_path: Path, missing: str) -> None:
    for suffix in (".xml", ".bin"):
        whole = made.openvino[32].with_suffix(suffix).read_bytes()
        (tmp_path / f"m{suffix}").write_bytes(whole[:500] if suffix == missing else whole)
    with pytest.raises(StillroomError) as caught:
        load(tmp_path / "m.xml")
    assert (caught.value.code, caught.value.exit) == ("SR-X704", Exit.MODEL)


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    for attempt in (
        lambda: openvino(nn.Identity(), tmp_path / "m.xml", example=digits(0, 1), classes=CLASSES),
        lambda: load(tmp_path / "m.xml"),
    ):
        with pytest.raises(StillroomError, match=r"pip install 'stillroom\[openvino\]'") as caught:
            attempt()
        assert (caught.value.code, caught.value.exit) == ("SR-X702", Exit.UNVERIFIED)


def test_nobody_is_told(made: Made) -> None:
    """Imported by itself, OpenVINO sends a message to its maker from a thread."""
    program = f"""
import sys
from stillroom.export.openvino import OpenVINO
import torch
heard = []
sys.addaudithook(lambda event, _: heard.append(event) if event.startswith(("socket", "urllib", "http")) else None)
OpenVINO().open({str(made.openvino[32])!r})(torch.zeros(1, 1, 8, 8))
assert "openvino" in sys.modules and sys.modules["openvino_telemetry"] is None
assert not heard, heard
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=60)

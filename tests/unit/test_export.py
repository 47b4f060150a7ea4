"""An exported file is whole, small, free in B, says what it is, and writing it disturbs nothing."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx as library
import pytest
import torch
from onnx import TensorProto, helper
from sklearn.datasets import load_digits
from torch import Tensor, nn

from stillroom.errors import Exit, StillroomError
from stillroom.export import _choice, _graph, runtime
from stillroom.export._errors import ExportPackagesMissing
from stillroom.export._facts import facts
from stillroom.export.onnx import ONNX
from stillroom.metrics.agreement import Agreement
from stillroom.models.network import Network
from stillroom.models.resnet import CifarResNet
from stillroom.tasks.segmentation import Segmentation
from stillroom.types import Output

onnx, load = ONNX().write, ONNX().open

CLASSES = tuple(f"digit {number}" for number in range(10))


def digits(start: int, stop: int) -> Tensor:
    """Real handwritten digits [B, 1, 8, 8] in 0..1."""
    return torch.tensor(load_digits().images[start:stop, None] / 16, dtype=torch.float32)


def digits_of_32(start: int, stop: int) -> Tensor:
    """The same [B, 1, 32, 32]."""
    return nn.functional.interpolate(digits(start, stop), 32)


def student(width: float = 1.0) -> Network:
    torch.manual_seed(0)
    module = CifarResNet(depth=8, channels=1, width=width)
    network = Network(module, classes=10, channels=1, mean=(0.3,), std=(0.35,))
    for _ in range(5):  # real statistics in the batch norms: fresh ones would hide a mistake in folding them
        network(digits(0, 256))
    return network.eval()


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> SimpleNamespace:
    """One student in both precisions; exporting takes seconds."""
    folder, network = tmp_path_factory.mktemp("exports"), student(1.5)
    floats = onnx(network, folder / "model.onnx", example=digits(0, 1), classes=CLASSES)
    batches = digits(0, 300).split(100)
    integers = onnx(
        network,
        folder / "model-int8.onnx",
        example=digits(0, 1),
        classes=CLASSES,
        bits=8,
        calibration=batches,
        base=floats,
    )
    return SimpleNamespace(network=network, floats=floats, integers=integers, folder=folder, calibration=batches)


def test_the_float_file_answers_as_the_network(made: Any) -> None:
    images = digits(300, 900)
    with torch.no_grad():
        expected = made.network(images).pred
    torch.testing.assert_close(load(made.floats)(images).pred, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 64])
@pytest.mark.parametrize("kind", ["floats", "integers"])
def test_any_number_of_images_and_each_for_itself(made: Any, kind: str, count: int) -> None:
    session, images = load(getattr(made, kind), threads=1), digits(300, 300 + count)
    alone = torch.cat([session(image[None]).pred for image in images])
    torch.testing.assert_close(session(images).pred, alone, rtol=1e-4, atol=1e-4)


def test_the_same_images_give_the_same_bits(made: Any) -> None:
    images = digits(300, 400)
    for path in (made.floats, made.integers):
        first, again = load(path, threads=2), load(path, threads=2)
        assert torch.equal(first(images).pred, first(images).pred)
        assert torch.equal(first(images).pred, again(images).pred)


def test_int8_is_at_least_three_times_smaller_and_nearly_the_same(made: Any) -> None:
    assert made.floats.stat().st_size > 3 * made.integers.stat().st_size
    images = digits(300, 1300)
    exact, rounded = load(made.floats)(images).pred, load(made.integers)(images).pred
    assert (exact.argmax(1) == rounded.argmax(1)).double().mean() >= 0.97
    assert not torch.equal(exact, rounded)


def test_the_weights_are_integers_and_the_pixels_are_not(made: Any) -> None:
    graph = library.load(made.integers).graph
    weights = [tensor for tensor in graph.initializer if np.prod(tensor.dims) >= 1000]
    assert len(weights) >= 6 and {tensor.data_type for tensor in weights} == {TensorProto.INT8}
    makers = {name: node for node in graph.node for name in node.output}
    stem = next(node for node in graph.node if node.op_type == "Conv")
    assert makers[stem.input[0]].op_type != "DequantizeLinear"
    last = makers["logits"]
    assert last.op_type == "Gemm"  # logits leave unrounded; rounded ones tie
    assert {makers[name].op_type for name in last.input[:2]} == {"DequantizeLinear"}


def test_the_file_says_what_it_is(made: Any) -> None:
    for path, bits in ((made.floats, "32"), (made.integers, "8")):
        session = load(path)
        assert session.classes == CLASSES
        assert (session.found["answers"], session.found["bits"]) == ("classes", bits) and "task" not in session.facts
        assert "0..1" in session.found["input"] and "[B, 1, 8, 8], grey" in session.found["input"]
        graph = library.load(path).graph
        assert [value.name for value in graph.input] == ["images"]
        assert [value.name for value in graph.output] == ["logits"]
        dims = graph.input[0].type.tensor_type.shape.dim
        assert dims[0].dim_param and [dim.dim_value for dim in dims[1:]] == [1, 8, 8]


def test_nothing_but_the_network_is_in_the_file(made: Any) -> None:
    for path in (made.floats, made.integers):
        model = library.load(path)
        held = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
        assert path.stat().st_size - held < 16_000
        assert not model.graph.value_info and not any(node.metadata_props for node in model.graph.node)
        assert str(Path.home()).encode() not in path.read_bytes() and b"stillroom/" not in path.read_bytes()


def test_one_file_each_and_no_leavings(made: Any) -> None:
    assert sorted(entry.name for entry in made.folder.iterdir()) == ["model-int8.onnx", "model.onnx"]


class Pointwise(nn.Module):
    """Four copies of every pixel, then a plain linear classifier: quick to export."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.copy, self.bn, self.decide = nn.Conv2d(1, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Linear(4096, 10)
        nn.init.constant_(self.copy.weight, 1.0)

    def forward(self, images: Tensor, taps: tuple[str, ...] = ()) -> Output:
        return Output(pred=self.decide(self.bn(self.copy(images)).relu().flatten(1)))


def test_exporting_is_silent_and_leaves_everything_as_it_was(tmp_path: Path, capfd: Any) -> None:
    network = Pointwise().train()
    network.bn.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    handlers, disabled = list(logging.root.handlers), logging.root.manager.disable
    images = digits_of_32(0, 50)
    onnx(network, tmp_path / "m.onnx", example=images, classes=CLASSES, bits=8, calibration=[images])
    assert capfd.readouterr() == ("", "")
    assert logging.root.handlers == handlers and logging.root.manager.disable == disabled
    assert network.training and not network.bn.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Odd(nn.Module):
    """Decides on the pixels' own values: no exporter can follow."""

    def forward(self, images: Tensor, taps: tuple[str, ...] = ()) -> Output:
        return Output(pred=images.flatten(1)[:, :2] * (2 if images.sum().item() > 1 else 3))


def test_what_cannot_be_exported_says_so_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"an earlier export")
    with pytest.raises(StillroomError) as caught:
        onnx(Odd(), path, example=digits(0, 1), classes=("a", "b"))
    assert (caught.value.code, caught.value.exit) == ("SR-X703", Exit.UNVERIFIED)
    assert caught.value.__cause__ is not None and len(str(caught.value).splitlines()) == 4
    assert path.read_bytes() == b"an earlier export"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


def test_another_failure_on_the_way_stays_itself(made: Any, tmp_path: Path, monkeypatch: Any) -> None:
    refused = ExportPackagesMissing(runtime="x", packages="y", install="z")

    def refuse(*args: Any) -> None:
        raise refused

    monkeypatch.setattr(_graph, "slim", refuse)
    with pytest.raises(StillroomError) as caught:
        onnx(made.network, tmp_path / "m.onnx", example=digits(0, 1), classes=CLASSES, base=made.floats)
    assert caught.value is refused and not list(tmp_path.iterdir())


def test_a_full_disk_is_told_as_one(made: Any, tmp_path: Path, monkeypatch: Any) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(library, "save_model", full)
    with pytest.raises(StillroomError) as caught:
        onnx(made.network, tmp_path / "m.onnx", example=digits(0, 1), classes=CLASSES, base=made.floats)
    assert caught.value.code == "SR-R501" and not list(tmp_path.iterdir())


def test_a_missing_runtime_names_the_package(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda name: None if name == "onnxruntime" else name)
    for attempt in (
        lambda: onnx(nn.Identity(), tmp_path / "m.onnx", example=digits(0, 1), classes=CLASSES),
        lambda: load(tmp_path / "m.onnx"),
    ):
        with pytest.raises(StillroomError, match="pip install onnxruntime") as caught:
            attempt()
        assert (caught.value.code, caught.value.exit) == ("SR-X702", Exit.UNVERIFIED)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bits": 2}, "bits is 32, 8 or 4"),
        ({"bits": 8}, "need calibration images"),
        ({"bits": 8, "calibration": [digits(0, 2)], "method": "guess"}, "one of best, minmax, percentile, not 'guess'"),
    ],
)
def test_wrong_arguments(tmp_path: Path, wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        onnx(nn.Identity(), tmp_path / "m.onnx", example=digits(0, 1), classes=CLASSES, **wrong)


def test_a_broken_file_is_refused(made: Any, tmp_path: Path) -> None:
    broken = tmp_path / "half.onnx"
    broken.write_bytes(made.floats.read_bytes()[:5000])
    with pytest.raises(StillroomError) as caught:
        load(broken)
    assert (caught.value.code, caught.value.exit) == ("SR-X704", Exit.MODEL)


def test_a_file_that_reads_other_files_is_not_opened(made: Any, tmp_path: Path) -> None:
    model = library.load(made.floats)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    hostile = tmp_path / "hostile.onnx"
    hostile.write_bytes(model.SerializeToString())
    with pytest.raises(StillroomError, match=r"\.\./\.\./etc/passwd") as caught:
        load(hostile)
    assert caught.value.code == "SR-S212"


def test_a_strangers_file_has_no_facts_but_runs(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["pixels"], ["scores"])],
        "stranger",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["B", 1, 1, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["B", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    library.save(model, tmp_path / "stranger.onnx")
    session = load(tmp_path / "stranger.onnx")
    assert session.classes == () and session.facts == {}
    assert session(torch.tensor([[[[1.0, 2.0, 3.0]]]])).pred.tolist() == [[1, 2, 3]]


def without_overflow(layer: nn.Linear) -> None:
    """Give each class one weight of twice the size of its others, which therefore take at most 64 of 127 levels.

    Processors without VNNI add products in pairs of 16 bits, which end at 32,767: 2 * 255 * 64 fits, 2 * 255 * 127 does
    not. The large weights read a corner that is 0 in every digit, and have nothing beside them.
    """
    with torch.no_grad():
        layer.weight[:, :4] = 0
        layer.weight[:, 0] = 2 * layer.weight.abs().amax(1)


def test_percentiles_win_where_one_value_would_spoil_the_range(tmp_path: Path) -> None:
    network, images = Pointwise().eval(), digits_of_32(0, 256)
    without_overflow(network.decide)
    images[200, 0, 5, 5] = 400.0  # all grid points but one would lie above every other pixel
    base = onnx(network, tmp_path / "m.onnx", example=images, classes=CLASSES)
    said = {}
    for method in ("minmax", "percentile", "best"):
        path = tmp_path / f"{method}.onnx"
        arguments: dict[str, Any] = {"bits": 8, "calibration": images.split(32), "method": method, "base": base}
        said[method] = load(onnx(network, path, example=images, classes=CLASSES, **arguments))
    found = {method: session.found["calibration_agreement"] for method, session in said.items()}
    assert [said[method].found["calibration"] for method in said] == ["minmax", "percentile", "percentile"]
    assert float(found["minmax"].split()[0]) < 0.8 < 0.95 < float(found["best"].split()[0])
    assert found["best"] == found["percentile"] and "on 256 calibration images" in found["best"]
    with torch.no_grad():
        expected = network(digits_of_32(300, 500)).pred.argmax(1)
    assert (said["best"](digits_of_32(300, 500)).pred.argmax(1) == expected).double().mean() > 0.95


def test_an_integer_file_says_how_it_was_calibrated_and_a_float_file_does_not(made: Any) -> None:
    floats, integers = load(made.floats), load(made.integers)
    images = torch.cat(made.calibration)
    agree = int((floats(images).pred.argmax(1) == integers(images).pred.argmax(1)).sum())
    share = f"{agree / 300:.4f} (with the float file, on 300 calibration images)"
    assert integers.found["calibration"] in ("minmax", "percentile")
    assert integers.found["calibration_agreement"] == share
    assert not {"calibration", "calibration_agreement"} & set(floats.facts)


def trial(method: str, agree: int, apart: float) -> _choice.Trial:
    return _choice.Trial(method=method, path=Path(method), agreement=agree / 256, mean_difference=apart, n=256)


@pytest.mark.parametrize(
    ("minmax", "percentile", "winner"),
    [
        ((250, 0.01), (251, 0.02), "percentile"),
        ((251, 0.02), (250, 0.01), "minmax"),
        ((250, 0.02), (250, 0.01), "percentile"),
        ((250, 0.01), (250, 0.01), "minmax"),
    ],
)
def test_agreement_decides_then_difference_then_simplicity(minmax: Any, percentile: Any, winner: str) -> None:
    assert _choice.best([trial("minmax", *minmax), trial("percentile", *percentile)]).method == winner


@pytest.mark.parametrize(("wrong", "tried"), [(1, ["minmax"]), (2, ["minmax", "percentile"])])
def test_the_search_ends_when_a_file_is_good_enough(wrong: int, tried: list[str]) -> None:
    made: list[str] = []
    images = torch.eye(256)
    flipped = images.clone()
    flipped[:wrong] = images[:wrong].roll(1, 1)

    def make(method: str) -> Path:
        made.append(method)
        return Path(method)

    def open_(path: Path) -> Any:
        answers = {"floats": images, "minmax": flipped, "percentile": torch.full_like(images, float("nan"))}[path.name]
        return lambda rows: Output(pred=answers[rows])

    batches = torch.arange(256).split(100)
    agreement = partial(Agreement, classes=())
    chosen = _choice.choose(["minmax", "percentile"], make, open_, Path("floats"), batches, agreement)
    assert (made, chosen.method, chosen.agreement, chosen.n) == (
        tried,
        "minmax",
        1 - wrong / 256,
        256,
    )  # NaN never agrees


def test_threads_are_pinned(made: Any) -> None:
    assert load(made.floats, threads=1)._session.get_session_options().intra_op_num_threads == 1
    every = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    assert load(made.floats)._session.get_session_options().intra_op_num_threads == every


def test_delicate_sums_and_products_stay_in_floats() -> None:
    node = helper.make_node
    nodes = [
        node("Sub", ["images", "mean"], ["s"], name="normalise"),
        node("Conv", ["s", "w"], ["a"], name="stem"),
        node("MatMul", ["a", "w"], ["b"], name="layer"),
        node("MatMul", ["a", "b"], ["c"], name="attention"),
        node("Add", ["b", "a"], ["d"], name="residual"),
        node("Relu", ["d"], ["e"], name="relu"),
        node("Add", ["e", "c"], ["logits"], name="stream"),
    ]
    pixels = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["B", 3, 8, 8])]
    tensors = [helper.make_tensor(name, TensorProto.FLOAT, [1], [0.0]) for name in ("mean", "w")]
    model = helper.make_model(helper.make_graph(nodes, "g", pixels, [], tensors))
    assert _graph.entrance(model) == ["normalise"]
    assert _graph.delicate(model) == ["attention", "stream"]


def test_classes_of_any_script_survive(tmp_path: Path) -> None:
    model = helper.make_model(helper.make_graph([], "g", [], []))
    shown: dict[str, Any] = {"classes": ("猫", 'Hündchen, "klein"'), "example": torch.zeros(1, 3, 4, 5), "bits": 32}
    _graph.describe(model, facts(**shown, task=None))
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(found["classes"]) == ["猫", 'Hündchen, "klein"']
    assert (found["answers"], found["bits"]) == ("classes", "32") and "task" not in found
    assert found["input"] == "images: float32 [B, 3, 4, 5], RGB, 0..1; normalisation is inside"
    assert found["output"] == "logits: float32 [B, 2]"
    _graph.describe(model, facts(**shown, task=Segmentation()))
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert "[B, 3, H, W]" in found["input"] and found["output"] == "logits: float32 [B, 2, H, W]"
    assert (found["task"], found["answers"]) == ("segmentation", "pixels")


def test_what_turns_numbers_into_boxes_stays_in_floats() -> None:
    node = helper.make_node
    nodes = [
        node("Conv", ["images", "w"], ["a"], name="stem"),
        node("Relu", ["a"], ["b"], name="between"),
        node("Conv", ["b", "w"], ["c"], name="head"),
        node("Exp", ["c"], ["d"], name="sides"),
        node("Concat", ["d", "c"], ["boxes"], name="joined"),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))
    assert _graph.ending(model) == ["sides", "joined"]

"""LiteRT's files: what goes to the converter, what comes back, and what an exporter's error means."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kit.verdict import verify
from sklearn.datasets import load_digits
from torch import Tensor, nn

from stillroom.errors import Exit, StillroomError
from stillroom.export import _litert_converter, litert, runtime
from stillroom.export._resize import resize
from stillroom.export._tools import export_error, unsupported_operator
from stillroom.export._wrapper import ExportWrapper
from stillroom.export.litert import LiteRT
from stillroom.models.network import Network
from stillroom.models.resnet import CifarResNet
from stillroom.types import Output

CLASSES = ("a plain one", "größer", "two\nlines", *"3456789")


def digits(start: int, stop: int) -> Tensor:
    return torch.tensor(load_digits().images[start:stop, None] / 16, dtype=torch.float32)


@pytest.mark.parametrize(
    ("old", "new"), [((8, 8), 12), ((31, 50), 24), ((7, 9), 64), ((240, 320), 112), ((5, 5), 5), ((1, 1), 4)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_plain_resize_is_the_resize(old: tuple[int, int], new: int, channels: int) -> None:
    images = torch.rand(2, channels, *old, generator=torch.Generator().manual_seed(0))
    network = Network(nn.Identity(), classes=1, channels=channels, size=new, mean=(0.0,), std=(1.0,))
    assert (ExportWrapper(network, plain_resize=True)(images) - network.preprocess(images)).abs().max() < 1e-5
    assert (resize(images, new, new + 3) - _antialiased(images, (new, new + 3))).abs().max() < 1e-5


def _antialiased(images: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(images, size, mode="bilinear", antialias=True)


def test_a_plain_resize_is_made_of_products_and_constants() -> None:
    body = nn.Sequential(nn.Flatten(), nn.Linear(144, 10))
    network = Network(body, classes=10, channels=1, size=12)
    for plain in (False, True):
        program = torch.export.export(ExportWrapper(network, plain_resize=plain), (digits(0, 1),))
        names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
        assert any("upsample" in name for name in names) is not plain
        assert any("matmul" in name for name in names) is plain
        with torch.no_grad():
            assert (program.module()(digits(5, 6)) - network(digits(5, 6)).pred).abs().max() < 1e-5


def test_a_plain_resize_is_for_one_size() -> None:
    with pytest.raises(ValueError, match="one size"):
        ExportWrapper(nn.Identity(), any_size=True, plain_resize=True)


@pytest.mark.parametrize(
    ("said", "operator"),
    [
        ("No ONNX function found for <OpOverload(op='aten.foo', overload='default')>. Failure message: ", "aten.foo"),
        ("Summary:\n-- No conversion rule found for operations: com.foo.A, B-20\n\n", "com.foo.A, B-20"),
        ("Missing out variants: {'aten::_upsample_bilinear2d_aa'}", "aten::_upsample_bilinear2d_aa"),
        ("Operator torch.ops.aten.foo.default is not Aten Canonical.", "aten.foo"),
        ("Lowering not found: aten._linalg_svd.default\n\nWhile executing", "aten._linalg_svd"),
        ("Only non-negative indices are allowed", None),
    ],
)
def test_an_error_that_means_a_missing_operator(said: str, operator: str | None) -> None:
    problem = ValueError("step 3 of 3 failed")
    problem.__cause__ = RuntimeError(said)
    patterns = [pattern for one in runtime.built_in().values() for pattern in one.missing_operator]
    assert unsupported_operator(problem, patterns) == operator
    failure = export_error("target", Path("m.file"), problem, patterns)
    assert (failure.code, failure.exit) == ("SR-X730" if operator else "SR-X703", Exit.UNVERIFIED)
    if operator:
        assert failure.what == f"target has no operator {operator}   m.file"


def test_what_the_file_says_is_packed_behind_it(tmp_path: Path) -> None:
    path, said = tmp_path / "m.tflite", {"classes": '["größer"]', "bits": "32"}
    for _ in range(2):
        path.write_bytes(b"TFL3 model")
        litert._pack(path, said, CLASSES)
        assert path.read_bytes().startswith(b"TFL3 model") and litert._packed(path) == said
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt").decode().splitlines() == ["a plain one", "größer", "two lines", *"3456789"]


def test_a_strangers_file_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"TFL3 model")
    assert litert._packed(path) == {}
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "a\n")
    assert litert._packed(path) == {}


def test_layers_on_no_grid_are_named_for_the_converter() -> None:
    network = Network(CifarResNet(depth=8, channels=1), classes=10, channels=1, head=("linear",))
    network.edits = ({"kind": "grid", "bits": 8, "group": 0, "layers": [], "float": ["layer1.0.conv2", "linear"]},)
    pattern, *rest = _litert_converter.floats(network)
    assert _litert_converter.within(network) != _litert_converter.within(nn.Identity())
    inside = "a.Speech/b.models.network.Network_network/c.CifarResNet_module/d.Sequential_layer1/e.Block_0/f.Conv2d_"
    assert re.search(pattern, f"{inside}conv2;2") and not re.search(pattern, f"{inside}conv1;1")
    assert re.search(_litert_converter.within(network), f"{inside}conv2;2")
    assert not re.search(_litert_converter.within(network), "a.Speech/b.models.network.Network_network;3")
    assert any(re.search(other, "serving_default_logits_output") for other in rest)


def worker(folder: Path, body: str) -> str:
    """A stand-in for the other environment's Python: `body` runs with the folder as `place`."""
    script = folder / "python"
    header = f"#!{sys.executable} -S\nimport sys, json, pathlib\nplace = pathlib.Path(sys.argv[3])\n"
    script.write_text(header + body)
    script.chmod(0o700)
    return str(script)


class Plain(nn.Module):
    def forward(self, images: Tensor, taps: tuple[str, ...] = ()) -> Output:
        return Output(pred=images.flatten(1)[:, :3])


def asked(**options: Any) -> Any:
    return {"example": digits(0, 1), "classes": ("a", "b", "c")} | options


def test_what_the_converter_gets_and_gives(tmp_path: Path, monkeypatch: Any) -> None:
    body = """
import struct
request = json.loads((place / "request.json").read_text())
assert sys.argv[1] == "-I" and sorted(request) == ["float", "within"], sys.argv
images = (place / "calibration.npy").read_bytes()
assert (place / "program.pt2").exists() != (place / "float.tflite").exists()
(place / "int8.tflite").write_bytes(b"TFL3 eight")
"""
    monkeypatch.setenv("STILLROOM_LITERT", worker(tmp_path, body))
    path = tmp_path / "m" / "m.tflite"
    for base in (None, tmp_path / "python"):
        LiteRT().write(Plain(), path, **asked(bits=8, calibration=iter([digits(0, 3)]), base=base))
        assert path.read_bytes().startswith(b"TFL3 eight") and list(path.parent.iterdir()) == [path]
    said = litert._packed(path)
    assert said["input"].startswith("images: float32 [1, 1, 8, 8]") and said["output"] == "logits: float32 [1, 3]"


@pytest.mark.parametrize(
    ("body", "code", "why"),
    [
        ("(place / 'error.json').write_text(json.dumps({'problem': 'Lowering not found: aten.x'})); 1 / 0", 730, None),
        ("(place / 'error.json').write_text(json.dumps({'problem': 'No such thing'})); 1 / 0", 703, "No such thing"),
        ("sys.exit(3)", 703, "ended with 3"),
        ("raise MemoryError('too much')", 703, "MemoryError: too much"),
    ],
)
def test_what_the_converter_refuses(tmp_path: Path, monkeypatch: Any, body: str, code: int, why: str | None) -> None:
    monkeypatch.setenv("STILLROOM_LITERT", worker(tmp_path, body))
    path = tmp_path / "m" / "m.tflite"
    path.parent.mkdir()
    path.write_bytes(b"an earlier export")
    with pytest.raises(StillroomError) as caught:
        LiteRT().write(Plain(), path, **asked())
    assert (caught.value.code, caught.value.exit) == (f"SR-X{code}", Exit.UNVERIFIED)
    assert why is None or why in caught.value.why
    assert path.read_bytes() == b"an earlier export" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("named", [None, "/nowhere/python"])
def test_no_converter_says_how_to_get_one(tmp_path: Path, monkeypatch: Any, named: str | None) -> None:
    monkeypatch.setattr(_litert_converter, "find_spec", lambda name: None)
    monkeypatch.delenv("STILLROOM_LITERT", raising=False)
    if named:
        monkeypatch.setenv("STILLROOM_LITERT", named)
    with pytest.raises(StillroomError) as caught:
        LiteRT().write(Plain(), tmp_path / "m.tflite", **asked())
    assert (caught.value.code, caught.value.exit) == ("SR-X732", Exit.UNVERIFIED)
    assert "python -m venv DIR" in caught.value.fix and "litert-torch==" in caught.value.fix
    assert (named or "not set") in caught.value.why and not list(tmp_path.iterdir())


def test_where_the_converter_is_installed_beside_the_program(monkeypatch: Any) -> None:
    monkeypatch.delenv("STILLROOM_LITERT", raising=False)
    monkeypatch.setattr(_litert_converter, "find_spec", lambda name: name)
    assert _litert_converter.converter() == sys.executable


def test_wrong_arguments(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    with pytest.raises(StillroomError) as caught:
        LiteRT().write(Plain(), path, **asked(bits=4))
    assert (caught.value.code, caught.value.exit) == ("SR-X731", Exit.UNVERIFIED)
    with pytest.raises(ValueError, match="bits is 32, 8 or 4"):
        LiteRT().write(Plain(), path, **asked(bits=16))
    with pytest.raises(ValueError, match="need calibration images"):
        LiteRT().write(Plain(), path, **asked(bits=8))


def test_a_missing_runtime_names_the_extra(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    with pytest.raises(StillroomError, match=r"pip install 'stillroom\[litert\]'") as caught:
        LiteRT().open(tmp_path / "m.tflite")
    assert caught.value.code == "SR-X702"


@pytest.mark.skipif(find_spec("ai_edge_litert") is None, reason="LiteRT's runtime is not installed")
def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"TFL3" * 100)
    with pytest.raises(StillroomError) as caught:
        LiteRT().open(path)
    assert (caught.value.code, caught.value.exit) == ("SR-X704", Exit.MODEL)


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("ai_edge_litert") is None or "STILLROOM_LITERT" not in os.environ,
    reason="LiteRT's runtime is not installed, or STILLROOM_LITERT names no converter",
)
def test_integers_where_they_belong(tmp_path: Path, capfd: Any) -> None:
    torch.manual_seed(0)
    network = Network(CifarResNet(depth=8, channels=1), classes=10, channels=1, size=12, head=("linear",))
    for _ in range(5):
        network(digits(0, 256))
    network.eval()
    kept = "layer2.0.conv1"
    network.edits = ({"kind": "grid", "bits": 8, "group": 0, "layers": [], "float": [kept]},)
    path = LiteRT().write(
        network, tmp_path / "m.tflite", **asked(bits=8, calibration=[digits(0, 200)], classes=CLASSES)
    )
    found = LiteRT().open(path, threads=1)
    with torch.no_grad():
        assert verify(network(digits(300, 700)).pred, found(digits(300, 700)).pred, gate=0.95).passed
    assert capfd.readouterr() == ("", "")
    tensors = found._interpreter.get_tensor_details()
    sizes = {network.get_submodule(f"module.{kept}").weight.numel(): np.float32}
    for part in (network.module.layer3[0].conv1, network.module.linear):
        sizes[part.weight.numel()] = np.int8
    for size, kind in sizes.items():
        assert {t["dtype"] for t in tensors if np.prod(t["shape"]) == size and _is_weight(t)} == {kind}, size


def _is_weight(tensor: Any) -> bool:
    return len(tensor["shape"]) in (2, 4) and tensor["shape"][0] > 1

"""Every file of `export/`: a new runtime is tested here without anybody adding it."""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import shutil
import subprocess
import symtable
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.verdict import verify
from sklearn.datasets import load_digits
from torch import Tensor

from stillroom.benchmark import remote
from stillroom.config import plugins
from stillroom.errors import StillroomError
from stillroom.export._errors import ExportPackagesMissing, UnsupportedBits
from stillroom.export._usage import RuntimeInfo
from stillroom.export._verify import mark_unverified
from stillroom.export.runtime import Runtime, built_in, find, kept_info
from stillroom.models.network import Network
from stillroom.models.resnet import CifarResNet

CLASSES = tuple("0123456789")
ROOT = Path(__file__).resolve().parents[2]


def digits(start: int, stop: int) -> Tensor:
    return torch.tensor(load_digits().images[start:stop, None] / 16, dtype=torch.float32)


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    body = CifarResNet(depth=8, channels=1)
    network = Network(body, classes=10, channels=1, size=12, mean=(0.3,), std=(0.35,), head=("linear",))
    for _ in range(5):
        network(digits(0, 256))
    return network.eval()


HEAVY = ("executorch", "litert")
"""Runtimes whose converters alone take many seconds to load."""

PARAMS = [pytest.param(name, marks=[pytest.mark.slow] * (name in HEAVY)) for name in plugins.choices("export")]


@pytest.fixture(scope="module", params=PARAMS)
def runtime(request: Any) -> Runtime:
    return find(request.param)


@pytest.fixture(params=plugins.choices("export"))
def declared(request: Any) -> Runtime:
    """Every runtime, for what needs none of its packages."""
    return find(request.param)


def opened(runtime: Runtime, path: Path, threads: int | None = None) -> Any:
    return unless_missing(runtime.open, path, threads)


def export(runtime: Runtime, network: Network, path: Path, **options: Any) -> Path:
    return unless_missing(runtime.write, network, path, example=digits(0, 1), classes=CLASSES, **options)


def unless_missing(call: Any, *args: Any, **options: Any) -> Any:
    try:
        return call(*args, **options)
    except StillroomError as failure:
        if failure.code in ("SR-X702", "SR-X732"):
            pytest.skip(failure.what)
        raise


@pytest.fixture(scope="module")
def written(runtime: Runtime, network: Network, tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp(runtime.name) / f"model{runtime.suffixes[0]}"
    assert export(runtime, network, path) == path
    return path


def test_the_folder_is_the_registry() -> None:
    assert {"onnx", "openvino", "litert"} <= set(plugins.choices("export")) == set(built_in())


def test_it_declares_what_a_runtime_declares(declared: Runtime) -> None:
    name, kind = declared.name, type(declared)
    assert find(name).name == name and import_module(f"stillroom.export.{name}").__doc__
    assert kind.__doc__ and kind.write.__doc__ and kind.open.__doc__
    assert declared.title and all(suffix.startswith(".") for suffix in declared.suffixes) and declared.suffixes
    assert 32 in declared.bits and set(declared.bits) | set(declared.other_bits) == {32, 8, 4}
    assert declared.packages and declared.base in ("", *built_in())
    given = inspect.signature(kind.write).parameters
    for parameter in inspect.signature(Runtime.write).parameters.values():
        assert (given[parameter.name].kind, given[parameter.name].default) == (parameter.kind, parameter.default)
    assert list(inspect.signature(kind.open).parameters) == ["self", "path", "threads"]


def test_no_two_write_the_same_file() -> None:
    endings = [suffix for runtime in built_in().values() for suffix in runtime.suffixes]
    assert len(set(endings)) == len(endings)


def test_its_packages_are_those_of_its_extra(declared: Runtime) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["optional-dependencies"][declared.extra] if declared.extra else project["dependencies"]
    for package in declared.packages.values():
        assert any(line.startswith(package) for line in lines), package
    assert f"[{declared.extra}]" in declared.install or not declared.extra


def test_declaring_it_imports_nothing_heavy(declared: Runtime) -> None:
    """The report and a server read the declaration."""
    heavy = {"torch", "numpy", *declared.packages} - {"onnxscript"}
    code = f"import sys; from stillroom.export.runtime import find; find({declared.name!r}).info; "
    code += f"print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_what_a_device_gets_stands_alone(declared: Runtime) -> None:
    """Nothing of this program, no name from outside the function, no grammar after Python 3.9."""
    text = declared.device_script()
    tree = ast.parse(text, feature_version=(3, 9))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not any(module.partition(".")[0] == "stillroom" for module in modules)
    table = symtable.symtable(text, "opener.py", "exec")
    outside = {name for scope in scopes(table) for name in names_from_outside(scope)}
    assert outside <= {name for name in dir(builtins)} | {"Any"}, outside  # annotations are not evaluated


def scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from scopes(child)


def names_from_outside(scope: symtable.SymbolTable) -> list[str]:
    return [symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global() and symbol.is_referenced()]


def test_a_device_runs_it(runtime: Runtime, network: Network, written: Path) -> None:
    images = digits(300, 304)
    found = remote.measure(written, runtime=runtime.name, images=images, threads=1, seconds=0.2, warmup=1)
    with torch.no_grad():
        np.testing.assert_allclose(found.answers, network(images).pred.numpy(), rtol=1e-3, atol=1e-4)
    assert found.facts["version"] and found.facts["threads"] == 1 and found.load_ms > 0


def test_its_words_for_pages_survive_json(declared: Runtime) -> None:
    kept = json.loads(json.dumps({"title": declared.title, "suffixes": declared.suffixes, "snippet": None}))
    assert RuntimeInfo.read(kept) == RuntimeInfo(title=declared.title, suffixes=declared.suffixes)
    assert kept_info(declared.name) == {}  # the program has them


def test_a_missing_package_is_named(declared: Runtime, monkeypatch: Any) -> None:
    monkeypatch.setattr("stillroom.export.runtime.find_spec", lambda name: None)
    assert declared.status()[declared.name] == f"missing: {declared.install}"
    for check in (declared.require, declared.ready, lambda: declared.open(Path("file"))):
        with pytest.raises(ExportPackagesMissing) as caught:
            check()
        assert caught.value.code == "SR-X702" and next(iter(declared.packages.values())) in caught.value.what


def test_bits_that_it_can_not_hold(declared: Runtime) -> None:
    for bits in {32, 8, 4} - set(declared.bits):
        with pytest.raises(UnsupportedBits, match=declared.other_bits[bits][:20]):
            declared.ready(bits)
    with pytest.raises(ValueError, match="bits is 32, 8 or 4, not 16"):
        declared.check_bits(16)


def test_the_file_runs_and_answers_as_the_network(runtime: Runtime, network: Network, written: Path) -> None:
    images = digits(300, 700)
    with torch.no_grad():
        expected = network(images).pred
    found = opened(runtime, written, 1)(images).pred
    assert verify(expected, found, gate=1.0, tolerance=0.001).passed
    assert found.dtype == torch.float32 and found.device.type == "cpu"


def test_any_number_of_images(runtime: Runtime, written: Path) -> None:
    model = opened(runtime, written)
    for count in (1, 3, 8):
        assert model(digits(0, count)).pred.shape == (count, 10)


def test_answers_are_kept_apart(runtime: Runtime, written: Path) -> None:
    model = opened(runtime, written)
    first = model(digits(0, 2)).pred
    kept = first.clone()
    model(digits(2, 4))
    assert torch.equal(first, kept)


def test_the_file_holds_its_facts(runtime: Runtime, written: Path) -> None:
    found = opened(runtime, written)
    assert found.classes == CLASSES
    assert (found.facts["answers"], found.facts["bits"]) == ("classes", "32")
    assert found.facts["input"].startswith("images: float32 [") and found.facts["output"].startswith("logits: ")


def test_it_leaves_the_files_it_declares_and_no_others(runtime: Runtime, written: Path) -> None:
    assert {entry.name for entry in written.parent.iterdir()} == {f"model{suffix}" for suffix in runtime.suffixes}


def test_eight_bits(runtime: Runtime, network: Network, written: Path, tmp_path: Path) -> None:
    path = tmp_path / f"model{runtime.suffixes[0]}"
    calibration = iter(digits(0, 200).split(50))
    export(runtime, network, path, bits=8, calibration=calibration, base=written)
    images = digits(300, 700)
    with torch.no_grad():
        expected = network(images).pred
    found = opened(runtime, path)
    assert verify(expected, found(images).pred, gate=0.95).passed
    assert found.facts["bits"] == "8" and found.classes == CLASSES
    assert {entry.name for entry in tmp_path.iterdir()} == {f"model{suffix}" for suffix in runtime.suffixes}
    sizes = [sum(place.with_suffix(suffix).stat().st_size for suffix in runtime.suffixes) for place in (path, written)]
    assert sizes[0] < sizes[1] * 0.8


def test_a_wrong_weight_is_caught_and_the_file_renamed(runtime: Runtime, network: Network, written: Path) -> None:
    """One class's weights are turned round inside the file, where it holds them as they are."""
    folder = written.parent / "spoilt"
    shutil.copytree(written.parent, folder, ignore=shutil.ignore_patterns("spoilt"))
    row = network.heads()[0].weight.detach()[3].numpy()
    holders = [path for path in sorted(folder.iterdir()) if row.tobytes() in path.read_bytes()]
    assert len(holders) == 1
    holders[0].write_bytes(holders[0].read_bytes().replace(row.tobytes(), (-row).tobytes()))
    images = digits(300, 700)
    with torch.no_grad():
        expected = network(images).pred
    spoilt = folder / written.name
    verdict = verify(expected, opened(runtime, spoilt)(images).pred, gate=0.995, tolerance=0.001)
    assert not verdict.passed
    renamed = mark_unverified(spoilt, verdict, runtime.suffixes[1:])
    assert not spoilt.exists() and opened(runtime, renamed)(images[:2]).pred.shape == (2, 10)
    assert {entry.name for entry in folder.iterdir()} == {f"model.unverified{suffix}" for suffix in runtime.suffixes}

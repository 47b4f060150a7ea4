"""Every file of `export/`: a new target is tested here without anybody adding it."""

from __future__ import annotations

import inspect
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.verdict import verify
from sklearn.datasets import load_digits
from stillroom.export.file import Export
from torch import Tensor

from stillroom.config import plugins
from stillroom.errors import StillroomError
from stillroom.export._verify import settle
from stillroom.models.network import Network
from stillroom.models.resnet import CifarResNet

CLASSES = tuple("0123456789")


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
"""Targets whose converters alone take many seconds to load."""

PARAMS = [pytest.param(name, marks=[pytest.mark.slow] * (name in HEAVY)) for name in plugins.choices("export")]


@pytest.fixture(scope="module", params=PARAMS)
def target(request: Any) -> str:
    return request.param


def opened(target: str, path: Path, **options: Any) -> Any:
    return unless_missing(import_module(f"stillroom.export.{target}").load, path, **options)


def export(target: str, network: Network, path: Path, **options: Any) -> Path:
    write = plugins.pick("export", target)
    return unless_missing(write, network, path, example=digits(0, 1), classes=CLASSES, **options)


def unless_missing(call: Any, *args: Any, **options: Any) -> Any:
    try:
        return call(*args, **options)
    except StillroomError as failure:
        if failure.code in ("SR-X702", "SR-X732"):
            pytest.skip(failure.what)
        raise


def suffixes(target: str) -> tuple[str, ...]:
    return import_module(f"stillroom.export.{target}").SUFFIXES


@pytest.fixture(scope="module")
def written(target: str, network: Network, tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp(target) / f"model{suffixes(target)[0]}"
    assert export(target, network, path) == path
    return path


def test_the_folder_is_the_registry() -> None:
    assert {"onnx", "openvino", "litert"} <= set(plugins.choices("export"))


def test_it_takes_what_every_target_takes(target: str) -> None:
    module = import_module(f"stillroom.export.{target}")
    given = inspect.signature(plugins.pick("export", target)).parameters
    for name, parameter in inspect.signature(Export.__call__).parameters.items():
        if name != "self":
            assert (given[name].kind, given[name].default) == (parameter.kind, parameter.default)
    assert "threads" in inspect.signature(module.load).parameters
    assert module.__doc__ and plugins.pick("export", target).__doc__ and module.load.__doc__
    assert all(suffix.startswith(".") for suffix in module.SUFFIXES)


def test_the_file_runs_and_says_what_the_network_says(target: str, network: Network, written: Path) -> None:
    images = digits(300, 700)
    with torch.no_grad():
        expected = network(images).pred
    said = opened(target, written, threads=1)(images).pred
    assert verify(expected, said, gate=1.0, tolerance=0.001).passed
    assert said.dtype == torch.float32 and said.device.type == "cpu"


def test_any_number_of_images(target: str, written: Path) -> None:
    speak = opened(target, written)
    for count in (1, 3, 8):
        assert speak(digits(0, count)).pred.shape == (count, 10)


def test_answers_are_kept_apart(target: str, written: Path) -> None:
    speak = opened(target, written)
    first = speak(digits(0, 2)).pred
    kept = first.clone()
    speak(digits(2, 4))
    assert torch.equal(first, kept)


def test_the_file_says_what_it_is(target: str, written: Path) -> None:
    found = opened(target, written)
    assert found.classes == CLASSES
    assert (found.facts["answers"], found.facts["bits"]) == ("classes", "32")
    assert found.facts["input"].startswith("images: float32 [") and found.facts["output"].startswith("logits: ")


def test_it_leaves_the_files_it_speaks_of_and_no_others(target: str, written: Path) -> None:
    assert {entry.name for entry in written.parent.iterdir()} == {f"model{suffix}" for suffix in suffixes(target)}


def test_eight_bits(target: str, network: Network, written: Path, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffixes(target)[0]}"
    calibration = iter(digits(0, 200).split(50))
    export(target, network, path, bits=8, calibration=calibration, base=written)
    images = digits(300, 700)
    with torch.no_grad():
        expected = network(images).pred
    found = opened(target, path)
    assert verify(expected, found(images).pred, gate=0.95).passed
    assert found.facts["bits"] == "8" and found.classes == CLASSES
    assert {entry.name for entry in tmp_path.iterdir()} == {f"model{suffix}" for suffix in suffixes(target)}
    sizes = [sum(place.with_suffix(suffix).stat().st_size for suffix in suffixes(target)) for place in (path, written)]
    assert sizes[0] < sizes[1] * 0.8


def test_a_wrong_weight_is_caught_and_the_file_renamed(target: str, network: Network, written: Path) -> None:
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
    verdict = verify(expected, opened(target, spoilt)(images).pred, gate=0.995, tolerance=0.001)
    assert not verdict.passed
    renamed = settle(spoilt, verdict, suffixes(target)[1:])
    assert not spoilt.exists() and opened(target, renamed)(images[:2]).pred.shape == (2, 10)
    assert {entry.name for entry in folder.iterdir()} == {f"model.unverified{suffix}" for suffix in suffixes(target)}

"""Every file of `export/`: a new target is tested here without anybody adding it."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.verdict import verify
from sklearn.datasets import load_digits
from torch import Tensor

from stillroom import plugins
from stillroom.export.file import Export
from stillroom.models.network import Network
from stillroom.models.resnet import CifarResNet

CLASSES = tuple("0123456789")


def digits(start: int, stop: int) -> Tensor:
    return torch.tensor(load_digits().images[start:stop, None] / 16, dtype=torch.float32)


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    network = Network(CifarResNet(depth=8, channels=1), classes=10, channels=1, size=12, mean=(0.3,), std=(0.35,))
    for _ in range(5):
        network(digits(0, 256))
    return network.eval()


@pytest.fixture(scope="module", params=plugins.choices("export"))
def target(request: Any) -> str:
    return request.param


@pytest.fixture(scope="module")
def written(target: str, network: Network, tmp_path_factory: Any) -> Path:
    export, path = plugins.pick("export", target), tmp_path_factory.mktemp(target) / "model.file"
    assert export(network, path, example=digits(0, 1), classes=CLASSES) == path
    return path


def test_the_folder_is_the_registry() -> None:
    assert "onnx" in plugins.choices("export")


def test_it_takes_what_every_target_takes(target: str) -> None:
    module = import_module(f"stillroom.export.{target}")
    given = inspect.signature(plugins.pick("export", target)).parameters
    for name, parameter in inspect.signature(Export.__call__).parameters.items():
        if name != "self":
            assert (given[name].kind, given[name].default) == (parameter.kind, parameter.default)
    assert "threads" in inspect.signature(module.load).parameters
    assert module.__doc__ and plugins.pick("export", target).__doc__ and module.load.__doc__


def test_the_file_runs_and_says_what_the_network_says(target: str, network: Network, written: Path) -> None:
    images = digits(300, 700)
    with torch.no_grad():
        expected = network(images).pred
    said = import_module(f"stillroom.export.{target}").load(written, threads=1)(images).pred
    assert verify(expected, said, gate=1.0, tolerance=0.001).passed
    assert said.dtype == torch.float32 and said.device.type == "cpu"


def test_any_number_of_images(target: str, written: Path) -> None:
    speak = import_module(f"stillroom.export.{target}").load(written)
    for count in (1, 3, 8):
        assert speak(digits(0, count)).pred.shape == (count, 10)


def test_eight_bits(target: str, network: Network, written: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.file"
    calibration = digits(0, 200).split(50)
    plugins.pick("export", target)(
        network, path, example=digits(0, 1), classes=CLASSES, bits=8, calibration=iter(calibration), base=written
    )
    images = digits(300, 700)
    with torch.no_grad():
        expected = network(images).pred
    said = import_module(f"stillroom.export.{target}").load(path)(images).pred
    assert verify(expected, said, gate=0.95).passed
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.file"]

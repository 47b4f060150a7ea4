"""Exported files against torch, on trained and on untrained networks of other libraries."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from kit.verdict import verify
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from stillroom.export.onnx import ONNX
from stillroom.models.network import Network
from stillroom.models.resnet import CifarResNet

onnx, load = ONNX().write, ONNX().open

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar(shared: Path, split: str, count: int) -> tuple[Tensor, Tensor]:
    """Real photographs [count, 3, 32, 32] in 0..1 with labels."""
    rows = pq.read_table(shared / "cifar10" / f"{split}-00000-of-00001.parquet").slice(0, count)
    images = [np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in rows["image"].to_pylist()]
    return torch.tensor(np.stack(images)).permute(0, 3, 1, 2).float() / 255, torch.tensor(rows["label"].to_pylist())


def test_a_trained_network_keeps_its_accuracy_in_both_precisions(shared: Path, tmp_path: Path) -> None:
    module = CifarResNet(depth=20)
    module.load_state_dict(load_file(shared / "weights" / "cifar10_resnet20.safetensors"))
    network = Network(module, classes=10, channels=3).eval()
    images, labels = cifar(shared, "test", 1000)
    floats = onnx(network, tmp_path / "model.onnx", example=images, classes=CIFAR)
    calibration = cifar(shared, "train", 300)[0].split(50)
    integers = onnx(
        network, tmp_path / "int8.onnx", example=images, classes=CIFAR, bits=8, calibration=calibration, base=floats
    )
    with torch.inference_mode():
        expected = torch.cat([network(part).pred for part in images.split(250)])
    exact, rounded = load(floats)(images).pred, load(integers)(images).pred
    right = [(said.argmax(1) == labels).double().mean() for said in (exact, rounded)]
    assert verify(expected, exact, gate=1.0, tolerance=1e-4).passed and right[0] > 0.9
    assert verify(expected, rounded, gate=0.98).passed and abs(right[1] - right[0]) <= 0.01
    assert floats.stat().st_size > 3.5 * integers.stat().st_size


class Textures:
    """Smooth random fields: images that no two channels share, with structure at several scales."""

    def __init__(self, size: int) -> None:
        self.size, self.generator = size, torch.Generator().manual_seed(0)

    def __call__(self, count: int) -> Tensor:
        fields = [
            nn.functional.interpolate(torch.rand(count, 3, side, side, generator=self.generator), self.size)
            for side in (2, 5, 16)
        ]
        return torch.stack(fields).mean(0)


@pytest.mark.parametrize(
    ("name", "side", "size", "arguments", "most", "smaller"),
    [
        ("deit_tiny_patch16_224", 48, 64, {"img_size": 64, "depth": 2}, 0.02, 3.6),
        ("mobilenetv3_small_050", 64, 48, {}, 0.3, 3.2),
    ],
)
@pytest.mark.slow
def test_other_families_export_quantise_and_run(
    tmp_path: Path, name: str, side: int, size: int | None, arguments: dict[str, Any], most: float, smaller: float
) -> None:
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=10, **arguments)
    if name.startswith("mobilenet"):  # a block of every kind and one with a shortcut; more would take longer to export
        module.blocks = nn.Sequential(*(stage[: 2 if i == 2 else 1] for i, stage in enumerate(module.blocks)))
    network = Network(module, classes=10, channels=3, size=size)
    textures = Textures(side)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # the plain mean over the batches
    with torch.no_grad():
        for _ in range(4):
            network(textures(32))
    network.eval()
    images, classes = textures(64), tuple("abcdefghij")
    floats = onnx(network, tmp_path / "model.onnx", example=images, classes=classes)
    integers = onnx(
        network,
        tmp_path / "int8.onnx",
        example=images,
        classes=classes,
        bits=8,
        calibration=[textures(32)],
        base=floats,
    )
    with torch.inference_mode():
        expected = network(images).pred
    torch.testing.assert_close(load(floats)(images).pred, expected, rtol=1e-3, atol=1e-4)
    rounded = load(integers)(images).pred
    noise = (rounded - expected).square().mean() / (expected - expected.mean(0)).square().mean()
    assert 0 < noise < most, noise  # a share of the logits' own variance: 1 and more would be answers without meaning
    assert floats.stat().st_size > smaller * integers.stat().st_size

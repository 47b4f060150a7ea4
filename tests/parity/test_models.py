"""Networks against references: the paper's equations as plain arithmetic, and the accuracy known of checkpoints."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

from stillroom.models import Network, assign_weights, create_model, read_weights, restore

PUBLISHED = {"resnet20": 0.9173, "resnet44": 0.9310, "resnet56": 0.9339}
"""Accuracy of the checkpoints on the 10,000 test images of CIFAR-10."""


def convolve(x: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    """[C, h, w], [D, C, 3, 3] -> [D, h', w']: the sum itself, with one zero on each side."""
    _, height, width = x.shape
    padded = np.zeros((x.shape[0], height + 2, width + 2))
    padded[:, 1:-1, 1:-1] = x
    rows, columns = range(0, height, stride), range(0, width, stride)
    return np.array([[[(padded[:, i : i + 3, j : j + 3] * w).sum() for j in columns] for i in rows] for w in weight])


def normalise(x: np.ndarray, state: dict[str, np.ndarray], name: str) -> np.ndarray:
    gain = state[f"{name}.weight"] / np.sqrt(state[f"{name}.running_var"] + 1e-5)
    return (x - state[f"{name}.running_mean"][:, None, None]) * gain[:, None, None] + state[f"{name}.bias"][
        :, None, None
    ]


def naive(image: np.ndarray, state: dict[str, np.ndarray], blocks: int) -> np.ndarray:
    """[C, H, W] normalised -> logits [K]."""
    x = np.maximum(normalise(convolve(image, state["conv1.weight"], 1), state, "bn1"), 0)
    for stage in (1, 2, 3):
        for block in range(blocks):
            at, stride = f"layer{stage}.{block}.", 2 if stage > 1 and block == 0 else 1
            y = np.maximum(normalise(convolve(x, state[f"{at}conv1.weight"], stride), state, f"{at}bn1"), 0)
            y = normalise(convolve(y, state[f"{at}conv2.weight"], 1), state, f"{at}bn2")
            shortcut = np.zeros_like(y)
            before = (len(y) - len(x)) // 2
            shortcut[before : before + len(x)] = x[:, ::stride, ::stride]
            x = np.maximum(y + shortcut, 0)
    return state["linear.weight"] @ x.mean((1, 2)) + state["linear.bias"]


def test_resnet20_is_the_papers_arithmetic() -> None:
    torch.manual_seed(0)
    network = create_model("resnet20", classes=10, channels=3, size=6).eval().double()
    for name, value in network.weights().items():  # a fresh batch norm does nothing: give it something to do
        if name.endswith(("running_var", "bn1.weight", "bn2.weight")):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            value.uniform_(-0.5, 0.5)
    images = torch.rand(2, 3, 6, 7, dtype=torch.float64)
    state = {name: value.numpy() for name, value in network.weights().items()}
    mean, std = (getattr(network, name).numpy() for name in ("mean", "std"))
    wanted = np.stack([naive((image - mean) / std, state, blocks=3) for image in images.numpy()])
    with torch.no_grad():
        np.testing.assert_allclose(network(images).pred.numpy(), wanted, rtol=1e-10, atol=1e-10)


def cifar(shared: Path, rows: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The first test images, [n, 3, 32, 32] uint8, and their labels [n]."""
    table = parquet.read_table(shared / "cifar10" / "test-00000-of-00001.parquet").slice(0, rows)
    blobs = [row["bytes"] for row in table.column("image").to_pylist()]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(blob)).convert("RGB")) for blob in blobs])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.tensor(table.column("label").to_pylist())


@torch.no_grad()
def accuracy(network: Network, images: torch.Tensor, labels: torch.Tensor) -> float:
    network.eval()
    hits = [
        network(part / 255).pred.argmax(1) == truth
        for part, truth in zip(images.split(500), labels.split(500), strict=True)
    ]
    return torch.cat(hits).double().mean().item()


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_classic_checkpoints_fit(name: str, shared: Path) -> None:
    state, said = read_weights(shared / "weights" / f"cifar10_{name}.safetensors")
    network = create_model(name, classes=10, channels=3, size=32)
    assign_weights(network, state)
    assert all(torch.equal(network.weights()[key], value) for key, value in state.items())
    assert said["mean"] == "0.485,0.456,0.406"


def test_resnet20_has_its_published_accuracy_on_a_thousand_test_images(shared: Path) -> None:
    """n = 1,000 drawn from N = 10,000 images, p = 0.9173 over all of them: the share of hits among the n has the
    standard deviation sqrt(p (1 - p) / n * (N - n) / (N - 1)) = 0.0083. Four of them: 0.033.

    One wrong constant costs more: without normalisation, or with the channels in BGR order, accuracy falls below 0.8.
    """
    images, labels = cifar(shared, 1000)
    path = shared / "weights" / "cifar10_resnet20.safetensors"
    network = restore("resnet20", path, classes=10, channels=3, size=32, mean=(0.1,), std=(3.0,))  # the file's count
    p, n, everything = PUBLISHED["resnet20"], 1000, 10_000
    deviation = math.sqrt(p * (1 - p) / n * (everything - n) / (everything - 1))
    assert accuracy(network, images, labels) == pytest.approx(p, abs=4 * deviation)
    network.set_pixel_statistics((0.0,), (1.0,))
    assert accuracy(network, images[:250], labels[:250]) < p - 8 * deviation  # 250 have twice the deviation


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_accuracy_on_all_test_images(name: str, shared: Path) -> None:
    images, labels = cifar(shared, None)
    network = restore(name, shared / "weights" / f"cifar10_{name}.safetensors", classes=10, channels=3, size=32)
    # two images of 10,000 may fall on the other side for the order of a sum
    assert accuracy(network, images, labels) == pytest.approx(PUBLISHED[name], abs=2e-4)


@pytest.mark.parametrize(
    ("name", "file", "arguments"),
    [
        ("timm/deit_tiny_patch16_224", "deit_tiny_patch16_224.in1k.fp16", {}),
        ("timm/mobilenetv2_100", "mobilenetv2_100_same.tf2_in1k.fp16", {"pad_type": "same"}),
    ],
)
def test_timm_weights_answer_as_plain_timm_does(name: str, file: str, arguments: dict, shared: Path) -> None:
    """On flower photos that differ, against timm's own model, loaded and normalised without our code."""
    import timm
    from safetensors.torch import load_file

    path = shared / "weights" / f"{file}.safetensors"
    photos = sorted((shared / "flowers224" / "val").glob("*/*.jpg"))[::30]
    squares = [Image.open(photo).convert("RGB").resize((224, 224)) for photo in photos]
    images = torch.from_numpy(np.stack([np.asarray(square) for square in squares])).permute(0, 3, 1, 2) / 255
    plain = timm.create_model(name.removeprefix("timm/"), num_classes=1000, **arguments).eval()
    plain.load_state_dict(
        {key: value.float() if value.is_floating_point() else value for key, value in load_file(path).items()}
    )
    half = (0.5, 0.5, 0.5)
    mean, std = (half, half) if "mobilenet" in name else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    network = restore(
        name, path, classes=None, channels=3, size=224, mean=(0.1,) * 3, std=(0.9,) * 3, **arguments
    ).eval()
    assert network.classes == 1000
    with torch.no_grad():
        wanted = plain((images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))
        torch.testing.assert_close(network(images).pred, wanted, rtol=1e-4, atol=1e-4)
        assert len(wanted.argmax(1).unique()) > 1
        plain.load_state_dict({key: torch.zeros_like(value) for key, value in plain.state_dict().items()})
        plain.load_state_dict(network.weights(), strict=True)  # and back: what we save is timm's own layout
        assert torch.equal(plain(network.preprocess(images)), network(images).pred)

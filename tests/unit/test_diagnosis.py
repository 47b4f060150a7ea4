"""A file that fails its check is told apart: wrong preprocessing by what is wrong with it, a fault in a weight not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx as library
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from sklearn.datasets import load_digits
from torch import Tensor

from stillroom.data.dataset import load_dataset
from stillroom.data.sources.digits import Digits
from stillroom.errors import Exit, StillroomError
from stillroom.export import artifact
from stillroom.export._diagnosis import diagnose
from stillroom.export.onnx import ONNX
from stillroom.models.network import IMAGENET, Network
from stillroom.models.resnet import CifarResNet
from stillroom.stages import verify
from stillroom.tasks.classification import Classification
from stillroom.types import Output

DIGITS = load_digits()
LABELS = torch.tensor(DIGITS.target)
MEAN, STD = 0.31, 0.37
CPU = torch.device("cpu")


def grey(count: int) -> Tensor:
    """Real handwritten digits [B, 1, 8, 8] in 0..1."""
    return torch.tensor(DIGITS.images[:count, None] / 16, dtype=torch.float32)


def inked(count: int) -> Tensor:
    """The same [B, 3, 8, 8], each in a colour of its own."""
    ink = torch.rand(count, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    return grey(count) * ink


def taught(images: Tensor, **arguments: Any) -> Network:
    """A small network that has learnt a little, so that its answers differ from image to image."""
    torch.manual_seed(0)
    network = Network(CifarResNet(depth=8, channels=images.shape[1], width=0.5), classes=10, **arguments)
    optimizer = torch.optim.AdamW(network.parameters(), 0.01)
    for step in range(40):
        rows = torch.arange(step * 64, step * 64 + 64) % len(images)
        optimizer.zero_grad()
        F.cross_entropy(network(images[rows]).pred, LABELS[rows]).backward()
        optimizer.step()
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def plain() -> Network:
    return taught(grey(640), channels=1, mean=(MEAN,), std=(STD,))


@pytest.fixture(scope="module")
def coloured() -> Network:
    return taught(inked(640), channels=3)


def same(said: Output, expected: Output) -> float:
    return float((said.pred.argmax(1) == expected.pred.argmax(1)).double().mean())


def of(network: Network, change: Callable[[Tensor], Tensor], images: Tensor) -> str | None:
    """The diagnosis of a file that does this to its images before it does what the network does."""
    return diagnose(lambda shown: network(change(shown)), network, images, same, gate=0.995)


def normalised(images: Tensor, mean: Any, std: Any) -> Tensor:
    return (images - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def restored(images: Tensor, mean: Any, std: Any) -> Tensor:
    return images * torch.tensor(std).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda shown: shown / 255, ["0..255", "expects them so"]),
        (lambda shown: shown * 255, ["divided by 255", "multiplies by 255"]),
        (lambda shown: 1 - shown, ["1 - pixel"]),
        (lambda shown: restored(shown, MEAN, STD), ["the network's own mean and std: the file does not normalise"]),
        (lambda shown: normalised(shown, MEAN, STD), ["the network's own mean and std", "once more"]),
        (lambda shown: shown * 2 - 1, ["mean 0.5 and std 0.5", "once more"]),
        (lambda shown: (shown + 1) / 2, ["mean 0.5 and std 0.5: the file does not normalise"]),
        (lambda shown: restored(shown * 2 - 1, MEAN, STD), ["mean 0.5 and std 0.5", "not its network's"]),
        (lambda shown: shown.flip(-1), ["mirrored"]),
        (lambda shown: shown.flip(-2), ["upside down"]),
        (lambda shown: shown.mT, ["rows and columns"]),
    ],
)
def test_each_mistake_by_its_name(plain: Network, change: Any, words: list[str]) -> None:
    found = of(plain, change, grey(64))
    assert found and all(word in found for word in words), found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda shown: shown.flip(1), ["blue, green, red"]),
        # The network's own are ImageNet's, and are said to be its own.
        (lambda shown: normalised(shown, *IMAGENET), ["the network's own mean and std", "once more"]),
        (lambda shown: restored(shown * 2 - 1, *IMAGENET), ["mean 0.5 and std 0.5", "not its network's"]),
    ],
)
def test_mistakes_with_colours(coloured: Network, change: Any, words: list[str]) -> None:
    found = of(coloured, change, inked(64))
    assert found and all(word in found for word in words), found


def test_who_is_no_network_has_no_statistics_of_its_own_but_all_else(coloured: Network) -> None:
    def answer(shown: Tensor) -> Output:
        return coloured(shown)

    def wrong(shown: Tensor) -> Output:
        return coloured(normalised(shown, *IMAGENET))

    found = diagnose(wrong, answer, inked(64), same, gate=0.995)
    assert found and "ImageNet's mean and std" in found and "once more" in found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "bilinear"}, "without antialiasing"),
        ({"mode": "nearest"}, "to the nearest pixel"),
        ({"mode": "bicubic", "antialias": True}, "bicubically"),
    ],
)
def test_another_resize(plain: Network, options: Any, words: str) -> None:
    resizing = Network(plain.module, classes=10, channels=1, size=8, mean=(MEAN,), std=(STD,)).eval()
    large = F.interpolate(grey(64), (20, 20), mode="bicubic").clamp(0, 1)
    found = of(resizing, lambda shown: F.interpolate(shown, (8, 8), **options), large)
    assert found and words in found, found


def test_nothing_is_said_without_reason(plain: Network) -> None:
    noise = torch.randn(64, 10, generator=torch.Generator().manual_seed(0))
    assert of(plain, lambda shown: shown, grey(64)) is None
    assert of(plain, lambda shown: shown.roll(3, -1), grey(64)) is None
    assert diagnose(lambda shown: Output(pred=noise), plain, grey(64), same, gate=0.9) is None
    assert diagnose(lambda shown: Output(pred=noise * float("nan")), plain, grey(64), same, gate=0.0) is None


def test_a_file_that_is_nearly_right_is_not_blamed_for_what_changes_nothing() -> None:
    """A network that does not see left from right: mirrored images explain nothing."""

    def network(shown: Tensor) -> Output:
        return Output(pred=F.one_hot((shown.mean((1, 2, 3)) * 20).long() % 20, 20).float())

    def file(shown: Tensor) -> Output:
        return Output(pred=network(shown).pred + 0.05)

    assert diagnose(file, network, grey(64), same, gate=0.995) is None


# through the judge, with a real file


@pytest.fixture(scope="module")
def proved(plain: Network, tmp_path_factory: Any) -> SimpleNamespace:
    data = load_dataset(Digits())
    path = tmp_path_factory.mktemp("exports") / "student.onnx"
    ONNX().write(plain, path, example=grey(1), classes=data.classes, task=Classification())
    return SimpleNamespace(data=data, path=path, network=plain)


def verdict(proved: Any, path: Path, target: str = "onnx") -> Any:
    made = artifact.ExportedFile(runtime=target, bits=32, path=path, gate=0.995)
    _, verdicts = verify.evaluate_all(
        {"student": proved.network}, [made], proved.data, Classification(), device=CPU, samples=None
    )
    return verdicts[made.name]


def spoilt(path: Path, target: Path, spoil: Callable[[np.ndarray], np.ndarray | None]) -> Path:
    """A copy of an ONNX file in which constants are changed; what gives None stays."""
    model, changed = library.load(path), 0
    for tensor in model.graph.initializer:
        value = spoil(numpy_helper.to_array(tensor))
        if value is not None:
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
            changed += 1
    assert changed
    library.save(model, target)
    return target


def test_a_file_as_it_was_made_passes(proved: Any) -> None:
    found = verdict(proved, proved.path)
    assert found.passed and found.cause == ""


def test_other_statistics_in_the_file(proved: Any, tmp_path: Path) -> None:
    def swap(value: np.ndarray) -> np.ndarray | None:
        known = {MEAN: 0.5, STD: 0.5}
        near = [new for old, new in known.items() if value.size == 1 and np.allclose(value, old)]
        return np.full_like(value, near[0]) if near else None

    found = verdict(proved, spoilt(proved.path, tmp_path / "wrong.onnx", swap))
    failure = found.failure(tmp_path / "wrong.onnx")
    assert (failure.code, failure.exit) == ("SR-X741", Exit.UNVERIFIED)
    assert "mean 0.5 and std 0.5" in failure.why and "agreement" in failure.what


def test_a_fault_in_a_weight_is_no_matter_of_preprocessing(proved: Any, tmp_path: Path) -> None:
    def perturb(value: np.ndarray) -> np.ndarray | None:
        return -value if value.ndim == 4 and value.shape[1] == 1 else None

    found = verdict(proved, spoilt(proved.path, tmp_path / "perturbed.onnx", perturb))
    failure = found.failure(tmp_path / "perturbed.onnx")
    assert not found.passed and found.cause == ""
    assert (failure.code, failure.exit) == ("SR-X701", Exit.UNVERIFIED)


def test_the_bytes_of_a_file_are_those_of_its_companions_too(tmp_path: Path) -> None:
    for name, size in (("m.xml", 3), ("m.bin", 40), ("other.bin", 500)):
        (tmp_path / name).write_bytes(bytes(size))
    made = artifact.ExportedFile(runtime="openvino", bits=32, path=tmp_path / "m.xml", gate=1.0)
    assert (made.companions, made.bytes) == ((".bin",), 43)
    failed = replace(verdict_of(0.5), gate=0.9)
    (renamed,) = verify.rename_unverified([made], {made.name: failed})
    assert renamed.path.name == "m.unverified.xml" and renamed.bytes == 43


def verdict_of(agreement: float) -> Any:
    from stillroom.export._verify import Verification
    from stillroom.metrics.measurement import Measurement

    return Verification(figure=Measurement(value=agreement, how="of two", n=2), gate=0.0)


def test_both_codes_have_their_own_words() -> None:
    wrong = replace(verdict_of(0.5), gate=0.9, cause="it is so").failure(Path("m.onnx"))
    assert isinstance(wrong, StillroomError) and wrong.why == "it is so" and "agreement 50.0% < 90.0%" in wrong.what

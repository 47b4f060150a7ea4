"""The CIFAR ResNet: sizes as published, shortcuts as in the paper."""

from __future__ import annotations

import pytest
import torch

from stillroom.errors import StillroomError
from stillroom.models import create_model
from stillroom.models.resnet import VARIANTS, Block, CifarResNet


def parameters(depth: int, classes: int = 10, channels: int = 3, wide: tuple[int, ...] = (16, 32, 64)) -> int:
    """Counted by hand: a 3x3 convolution has 9 x in x out weights, a batch norm two numbers a channel."""
    total, before = 9 * channels * wide[0] + 2 * wide[0], wide[0]
    for width in wide:
        for _ in range((depth - 2) // 6):
            total += 9 * before * width + 9 * width * width + 4 * width
            before = width
    return total + (wide[-1] + 1) * classes


@pytest.mark.parametrize(
    ("name", "published"),
    [("resnet20", 0.27), ("resnet32", 0.46), ("resnet44", 0.66), ("resnet56", 0.85), ("resnet110", 1.7)],
)
def test_size_as_in_table_6_of_the_paper(name: str, published: float) -> None:
    module = CifarResNet(depth=VARIANTS[name])
    count = sum(parameter.numel() for parameter in module.parameters())
    assert count == parameters(VARIANTS[name])
    assert count / 1e6 == pytest.approx(published, abs=0.05 if published > 1 else 0.006)
    layers = [m for m in module.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    assert len(layers) == VARIANTS[name]


@pytest.mark.parametrize(
    ("width", "wide"), [(0.5, (8, 16, 32)), (2.0, (32, 64, 128)), (0.3, (5, 10, 19)), (0.01, (1, 1, 1))]
)
def test_width(width: float, wide: tuple[int, ...]) -> None:
    network = create_model("resnet8", classes=4, channels=1, size=28, width=width)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters(8, 4, 1, wide)
    assert network(torch.rand(2, 1, 28, 28)).pred.shape == (2, 4)


def test_shortcut_takes_every_second_pixel_and_zeros_on_both_sides() -> None:
    block = Block(2, 6, stride=2).eval()
    with torch.no_grad():
        block.bn2.weight.zero_()  # only the shortcut is left
        x = torch.arange(2 * 5 * 5.0).view(1, 2, 5, 5)
        y = block(x)
    assert y.shape == (1, 6, 3, 3)
    assert torch.equal(y[:, 2:4], x[:, :, [0, 2, 4]][..., [0, 2, 4]])
    assert not y[:, [0, 1, 4, 5]].any()


@pytest.mark.parametrize("size", [1, 7, 28, 33])
def test_any_size(size: int) -> None:
    network = create_model("resnet8", classes=3, channels=3, size=size).eval()
    assert network.size is None
    assert network(torch.rand(2, 3, size, size)).pred.shape == (2, 3)


@pytest.mark.parametrize("depth", [0, 2, 9, 21])
def test_a_depth_that_is_none(depth: int) -> None:
    with pytest.raises(ValueError, match="6n"):
        CifarResNet(depth=depth)


def test_a_width_that_is_none() -> None:
    with pytest.raises(StillroomError, match="width must be above 0") as caught:
        create_model("resnet8", classes=3, channels=3, size=8, width=0)
    assert caught.value.code == "SR-M304"


def test_nothing_to_fetch() -> None:
    with pytest.raises(StillroomError) as caught:
        create_model("resnet20", classes=10, channels=3, size=32, pretrained=True)
    assert caught.value.code == "SR-M308"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("resnet57", "'resnet56'"), ("resnet50", "'timm/resnet50' or 'torchvision/resnet50'"), ("Resnet20", "'resnet20'")],
)
def test_a_wrong_name_is_answered_with_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(StillroomError) as caught:
        create_model(wrong, classes=10, channels=3, size=32)
    assert caught.value.code == "SR-M303" and f"did you mean {right}?" in caught.value.what

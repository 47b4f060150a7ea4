"""ResNets for CIFAR. He et al. 2016, https://arxiv.org/abs/1512.03385, section 4.2.

Three stages of n blocks with two 3x3 convolutions each, 16, 32 and 64 channels wide, starting at the image's
resolution: depth 6n + 2. Shortcuts have no parameters (the paper's option A): every second pixel, and zeros for new
channels.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.config.plugins import near
from stillroom.models._errors import PretrainedWeightsNotFound, UnknownModel, UnsupportedOutput
from stillroom.models._family import NetworkSpec
from stillroom.models._library_errors import argument_errors
from stillroom.models._probe import resolve_input_size
from stillroom.models.network import IMAGENET, Network

VARIANTS = {f"resnet{depth}": depth for depth in (8, 14, 20, 32, 44, 56, 110)}
"""The usual depths. 26, 38 and 50 would be possible too, but `resnet50` commonly means another network."""


class Resnet:
    """`resnet8`, with 75,000 parameters, to `resnet110`, with 1.7 million."""

    example = "resnet8"
    has_pixel_statistics = False

    def matches(self, name: str) -> bool:
        """See `Family.matches`."""
        return name in VARIANTS

    def names(self, like: str = "") -> list[str]:
        """See `Family.names`."""
        return [name for name in VARIANTS if like in name]

    def build(self, name: str, spec: NetworkSpec, **arguments: Any) -> Network:
        """See `Family.build`."""
        if name not in VARIANTS:
            raise UnknownModel(model=name, near=near(name, VARIANTS))
        if spec.pretrained:
            raise PretrainedWeightsNotFound(model=name, problem="this family has none to fetch", near="")
        if spec.output_kind not in ("classes", "vector"):
            raise UnsupportedOutput(model=name, output_kind=spec.output_kind)
        headless = spec.output_kind == "vector"
        with argument_errors(name):
            module = CifarResNet(depth=VARIANTS[name], classes=spec.classes or 10, channels=spec.channels, **arguments)
        if headless:
            module.linear = nn.Identity()  # type: ignore[assignment]
        network = Network(
            module,
            classes=0 if headless else spec.classes or 10,
            channels=spec.channels,
            mean=spec.mean or IMAGENET[0],
            std=spec.std or IMAGENET[1],
            head=("linear",),
            output_kind=spec.output_kind,
            removed_heads=("linear",) if headless else (),
        )
        return resolve_input_size(network, name, spec.size, own=None)


class CifarResNet(nn.Module):
    """A CIFAR ResNet for any image size, because the last feature map is averaged.

    Args:
        depth: 6n + 2.
        classes: K.
        channels: C.
        width: factor for the numbers of channels.
    """

    def __init__(self, *, depth: int = 8, classes: int = 10, channels: int = 3, width: float = 1.0):
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6n + 2, at least 8, not {depth}")
        if width <= 0:
            raise ValueError(f"width must be above 0, not {width}")
        planes = [max(1, round(count * width)) for count in (16, 32, 64)]
        self.conv1 = nn.Conv2d(channels, planes[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.layer1 = _stage(planes[0], planes[0], blocks, stride=1)
        self.layer2 = _stage(planes[0], planes[1], blocks, stride=2)
        self.layer3 = _stage(planes[1], planes[2], blocks, stride=2)
        self.linear = nn.Linear(planes[2], classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] normalised -> logits [B, K]."""
        features = F.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        return self.linear(features.mean((2, 3)))


class Block(nn.Module):
    """relu(shortcut(x) + bn(conv(relu(bn(conv(x))))))."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()  # a module, so that its input can be tapped
        self.stride, self.new = stride, out_channels - in_channels  # names that files of pruned networks contain

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C', ceil(h / stride), ceil(w / stride)]."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        before = self.new // 2  # half on each side of the existing channels, as in well-known checkpoints
        return F.pad(x, (0, 0, 0, 0, before, self.new - before)) if self.new else x


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = Block(in_channels, out_channels, stride)
    return nn.Sequential(first, *(Block(out_channels, out_channels, 1) for _ in range(blocks - 1)))

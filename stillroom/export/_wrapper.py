"""A network as exporters take it: a tensor in, a tensor out."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.export._resize import PlainResize
from stillroom.models.network import Network
from stillroom.types import Output


class ExportWrapper(nn.Module):
    """A network reduced to what an exporter can follow: a tensor in, a tensor out.

    Args:
        network: images -> Output.
        any_size: whether images of any height and width will come; the network then resizes whatever their size is.
        plain_resize: for runtimes that have no antialiased resize: it becomes two matrix products. The matrices are
            constants of the program, which so takes images of the traced size only.
    """

    def __init__(self, network: nn.Module, *, any_size: bool = False, plain_resize: bool = False):
        super().__init__()
        if any_size and plain_resize:
            raise ValueError("a plain resize is made for one size of images")
        self.plain_resize = plain_resize
        # A copy, so that moving and freezing it leaves the caller's network where and as it is.
        self.network = deepcopy(network).cpu().float().eval().requires_grad_(False)
        for part in self.network.modules():
            if isinstance(part, Network):
                part.always_resize = any_size

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in 0..1 to the answer."""
        with PlainResize() if self.plain_resize else nullcontext():
            output: Output = self.network(images)
        return output.pred


class NamedOutput(nn.Module):
    """A network whose answer has a name.

    Args:
        network: images -> Output.
        output: the name.
    """

    def __init__(self, network: nn.Module, output: str):
        super().__init__()
        self.wrapper, self.output = ExportWrapper(network, plain_resize=True), output

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images [1, C, H, W] in 0..1 to the answer, under its name."""
        return {self.output: self.wrapper(images)}


def traced_pair(example: Tensor, *, any_size: bool = False) -> Tensor:
    """[2, C, H, W] of the example's first image: tracing one image alone would fix B to 1.

    With `any_size` its height and width are changed to two numbers that are neither equal nor the network's own.
    """
    one = example[:1].detach().to(torch.float32).cpu()
    if any_size:
        one = F.interpolate(one, (one.shape[-2] + 13, one.shape[-1] + 27))
    return one.expand(2, -1, -1, -1).contiguous()

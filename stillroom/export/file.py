"""What an export target is, and what all of them share.

A target is a file of this folder with two functions in it:

    def NAME(network, path, *, example, classes, bits=32, calibration=(), ...) -> Path
        writes the network, its preprocessing included, and says where;
    def load(path, *, threads=None) -> Callable[[Tensor], Output]
        opens what was written; the result takes images [B, C, H, W] in 0..1 as a network does.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.errors import Failure
from stillroom.models.network import Network
from stillroom.tasks.task import Task
from stillroom.types import Output


class Export(Protocol):
    """The writing half of a target."""

    def __call__(
        self,
        network: nn.Module,
        path: Path,
        *,
        example: Tensor,
        classes: tuple[str, ...],
        bits: int = 32,
        calibration: Iterable[Tensor] = (),
        base: Path | None = None,
        task: Task | None = None,
    ) -> Path:
        """Write `network` to `path` and return `path`.

        Args:
            network: maps images [B, C, H, W] in 0..1 to an answer, as `Answering` does; it is left as it was.
            path: the file to write; it appears whole or not at all.
            example: [B, C, H, W], any image of the right shape.
            classes: names in label order, written into the file.
            bits: 32 for floats, 8 for integers.
            calibration: image batches [B, C, H, W] in 0..1 whose activations set the integer ranges.
            base: the float file of the same network, where this target has written it already; it may save work.
            task: what the answers mean, whether images may have any size, and how answers are compared; None: logits
                of a classifier, for images of the example's size.
        """
        ...


class Speech(nn.Module):
    """A network reduced to what an exporter understands: a tensor in, a tensor out.

    Args:
        network: images -> Output.
        any_size: whether images of any height and width will come; the network then resizes without a look.
    """

    def __init__(self, network: nn.Module, *, any_size: bool = False):
        super().__init__()
        # A copy, so that moving and freezing it leaves the caller's network where and as it is.
        self.network = deepcopy(network).cpu().float().eval().requires_grad_(False)
        for part in self.network.modules():
            if isinstance(part, Network):
                part.exact = any_size

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in 0..1 to the answer."""
        output: Output = self.network(images)
        return output.pred


def require(target: str, *packages: str) -> None:
    """Refuse, before any work is done, when a package that `target` needs is not installed.

    Raises:
        Failure: SR-X702 names the packages.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise Failure("SR-X702", target=target, packages=" ".join(missing))


@contextmanager
def quiet() -> Iterator[None]:
    """Silence for tools that talk while they work; what they raise still comes through.

    A handler is lent to the root logger, because the first `logging.info` of a tool would otherwise set up logging
    for the whole process.
    """
    root, level, deaf = logging.getLogger(), logging.root.manager.disable, logging.NullHandler()
    root.addHandler(deaf)
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        root.removeHandler(deaf)


def shape(example: Tensor) -> tuple[int, int, int]:
    """(C, H, W) of one image of the example."""
    if example.dim() != 4:
        raise ValueError(f"an example is [B, C, H, W], got {list(example.shape)}")
    channels, height, width = example.shape[1:]
    return channels, height, width


def pair(example: Tensor, *, any_size: bool = False) -> Tensor:
    """[2, C, H, W] of the example's first image: tracing one image alone would fix B to 1.

    With `any_size` its height and width are changed to two numbers that are neither equal nor the network's own.
    """
    one = example[:1].detach().to(torch.float32).cpu()
    if any_size:
        one = F.interpolate(one, (one.shape[-2] + 13, one.shape[-1] + 27))
    return one.expand(2, -1, -1, -1).contiguous()

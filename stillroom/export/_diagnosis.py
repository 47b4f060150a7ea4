"""Why a file answers otherwise than its network: the usual mistakes in what is done to pixels, tried one by one.

A mistake shows itself when it is undone. A file that wants pixels as 0..255 answers as the network does when it is
given those; one that resizes in another way answers as the network does of images that were resized so before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.models.network import IMAGENET, Network
from stillroom.types import Output

Speaker = Callable[[Tensor], Output]
OWN = "the network's own mean and std"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A mistake that a file may hold, and images changed so that it answers right if it does.

    Attributes:
        says: what must be done for the file to answer right, and what it then does wrong.
        given: [n, C, H, W], what the file is shown.
        meant: what the network is shown.
    """

    says: str
    given: Tensor
    meant: Tensor


@torch.no_grad()
def diagnose(
    file: Speaker, network: Speaker, images: Tensor, agree: Callable[[Output, Output], float], *, gate: float
) -> str | None:
    """What is wrong with a file's preprocessing; None where nothing of that kind explains its answers.

    Of the mistakes that make the two agree to `gate` it is the one under which they agree most, and of equals the one
    that leaves the smallest difference. That must be less than half of what it is without it, by the mean absolute
    difference of what both say: else a file that is nearly right would be blamed for what changes nothing.

    Args:
        file: what failed.
        network: what it was made from.
        images: [n, C, H, W] in 0..1, where the network is; a few dozen are enough.
        agree: how far two answers agree, in 0..1.
        gate: agreement from which on they count as the same.
    """
    as_it_is = _apart(file(images), network(images))
    best, least, says = gate, as_it_is / 2, None
    for trial in _trials(_inner(network), images):
        said, expected = file(trial.given.contiguous()), network(trial.meant.contiguous())
        agreement, apart = agree(said, expected), _apart(said, expected)
        explains = math.isfinite(apart) and apart < as_it_is / 2
        if explains and (agreement > best or (agreement == best and apart < least)):
            best, least, says = agreement, apart, trial.says
    return says


def _apart(said: Output, expected: Output) -> float:
    """Mean absolute difference; infinite where it is not a number."""
    mean = float((said.pred.cpu().double() - expected.pred.cpu().double()).abs().mean())
    return mean if math.isfinite(mean) else math.inf


def _inner(network: Any) -> Network | None:
    """Who prepares the pixels, if that is known."""
    parts = network.modules() if isinstance(network, nn.Module) else ()
    return next((part for part in parts if isinstance(part, Network)), None)


def _trials(network: Network | None, images: Tensor) -> Iterator[Trial]:
    changed = [*_ranges(images), *_statistics(network, images), *_orders(images)]
    yield from (Trial(says=f"it answers as the network does when {says}", given=g, meant=images) for says, g in changed)
    if network is not None and network.size is not None:
        like = "it answers as the network does of images that were resized"
        for says, meant in _resizes(network.size, images):
            yield Trial(says=f"{like} {says}: the file resizes so", given=images, meant=meant)


def _ranges(images: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield "pixels are given as 0..255: the file wants them so, or divides by 255 once more", images * 255
    yield "pixels are given divided by 255: the file multiplies by 255 for itself", images / 255
    yield "pixels are given as 1 - pixel: the file takes black for white", 1 - images


def _statistics(network: Network | None, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    known: dict[str, tuple[Sequence[float], Sequence[float]]]
    known = {"ImageNet's mean and std": IMAGENET, "mean 0.5 and std 0.5": ((0.5,), (0.5,))}
    if network is not None:
        known = {OWN: (network.mean.flatten().tolist(), network.std.flatten().tolist())} | known
    numbers = {name: [_shaped(values, images) for values in both] for name, both in known.items()}
    for name, (mean, std) in numbers.items():
        yield f"pixels are given normalised with {name}: the file does not normalise them", (images - mean) / std
        yield f"normalising with {name} is undone before: the file normalises once more", images * std + mean
    if network is not None:
        mean, std = numbers.pop(OWN)
        right = (images - mean) / std
        for name, (mean, std) in numbers.items():
            yield f"normalising with {name} is made up for: the file uses these, not its network's", right * std + mean


def _shaped(values: Sequence[float], images: Tensor) -> Tensor:
    """[C, 1, 1]: a number for each channel of the images, or for each the mean of them all."""
    found, channels = images.new_tensor(values), images.shape[1]
    return (found if len(found) == channels else found.mean().expand(channels)).view(-1, 1, 1)


def _orders(images: Tensor) -> Iterator[tuple[str, Tensor]]:
    if images.shape[1] == 3:
        yield "colours are given as blue, green, red: the file takes them in that order", images.flip(1)
    yield "images are given mirrored: the file mirrors them, or was made from mirrored ones", images.flip(-1)
    yield "images are given upside down: the file turns them over", images.flip(-2)
    if images.shape[-1] == images.shape[-2]:
        yield "rows and columns of images are exchanged: the file exchanges them", images.transpose(-1, -2)


def _resizes(size: int, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    if tuple(images.shape[-2:]) == (size, size):
        return
    yield "without antialiasing", F.interpolate(images, (size, size), mode="bilinear", align_corners=False)
    yield "with corners aligned", F.interpolate(images, (size, size), mode="bilinear", align_corners=True)
    yield "to the nearest pixel", F.interpolate(images, (size, size), mode="nearest")
    yield "bicubically", F.interpolate(images, (size, size), mode="bicubic", antialias=True)

"""Why a file's outputs are not its network's: common mistakes in preprocessing, tried one by one.

A mistake is found by undoing it. A file that expects pixels as 0..255 agrees with the network when it is given those;
one that resizes in another way agrees with the network on images that were resized so before.
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
from stillroom.types import Output, PredictFn

OWN = "the network's own mean and std"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A mistake that a file may hold, and images on which the file then agrees with the network.

    Attributes:
        cause: how the file is made to agree, and what it therefore does wrong.
        for_file: [n, C, H, W], what the file is given.
        for_network: what the network is given.
    """

    cause: str
    for_file: Tensor
    for_network: Tensor


@torch.no_grad()
def diagnose(
    file: PredictFn, network: PredictFn, images: Tensor, agree: Callable[[Output, Output], float], *, gate: float
) -> str | None:
    """The mistake in a file's preprocessing; None where no such mistake explains its outputs.

    Of the mistakes that make the two agree to `gate`, the one under which they agree most, and of equals the one with
    the smallest mean absolute difference. That must be less than half of the difference without it: else a file that is
    nearly right would be blamed for a change without effect.

    Args:
        file: what failed.
        network: what it was made from.
        images: [n, C, H, W] in 0..1, where the network is; a few dozen are enough.
        agree: agreement of two outputs, in 0..1.
        gate: agreement from which on they count as the same.
    """
    unchanged = _difference(file(images), network(images))
    best, least, cause = gate, unchanged / 2, None
    for trial in _trials(_inner(network), images):
        found, expected = file(trial.for_file.contiguous()), network(trial.for_network.contiguous())
        agreement, difference = agree(found, expected), _difference(found, expected)
        explains = math.isfinite(difference) and difference < unchanged / 2
        if explains and (agreement > best or (agreement == best and difference < least)):
            best, least, cause = agreement, difference, trial.cause
    return cause


def _difference(found: Output, expected: Output) -> float:
    """Mean absolute difference; infinite where it is not a number."""
    mean = float((found.pred.cpu().double() - expected.pred.cpu().double()).abs().mean())
    return mean if math.isfinite(mean) else math.inf


def _inner(network: Any) -> Network | None:
    """The part that normalises and resizes, if there is one."""
    parts = network.modules() if isinstance(network, nn.Module) else ()
    return next((part for part in parts if isinstance(part, Network)), None)


def _trials(network: Network | None, images: Tensor) -> Iterator[Trial]:
    changed = [*_ranges(images), *_statistics(network, images), *_orders(images)]
    for change, given in changed:
        yield Trial(cause=f"it agrees with the network when {change}", for_file=given, for_network=images)
    if network is not None and network.size is not None:
        for way, resized in _resizes(network.size, images):
            cause = f"it agrees with the network on images that were resized {way}: the file resizes so"
            yield Trial(cause=cause, for_file=images, for_network=resized)


def _ranges(images: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield "pixels are given as 0..255: the file expects them so, or divides by 255 once more", images * 255
    yield "pixels are given divided by 255: the file multiplies by 255 itself", images / 255
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

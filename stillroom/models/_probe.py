"""What every family asks of a model it has just made: does it run on the data's images, and what comes out?"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import nn

from stillroom.errors import StillroomError
from stillroom.models._errors import (
    InvalidModelArguments,
    PretrainedWeightsNotFound,
    WeightsNotCached,
    WrongOutputShape,
)
from stillroom.models.network import Network, extract_logits

UNREACHABLE = (ConnectionError, TimeoutError, socket.gaierror)
UNREACHABLE_NAMES = {
    "ConnectError",  # httpx, below huggingface_hub; named, because neither need be installed
    "ConnectTimeout",
    "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
}

OUTPUT_SHAPES: dict[str, tuple[Any, ...]] = {
    "classes": (1, "K"),
    "pixels": (1, "K", "h", "w"),
    "boxes": (1, "A", "K"),
    "vector": (1, "K"),
}
"""What one image gives, by what a network says; of boxes the last is 4 + K, of a vector K is its width."""

CANDIDATE_SIZES = (32, 64, 96, 128, 160, 192)
"""Sides, in pixels, to which images are enlarged when a model can't take them as small as they are."""


@contextmanager
def argument_errors(name: str) -> Iterator[None]:
    """Whatever a model's constructor says against its arguments becomes SR-M304."""
    try:
        yield
    except (StillroomError, MemoryError):
        raise
    except Exception as problem:
        raise InvalidModelArguments(model=name, problem=_line(problem)) from problem


@contextmanager
def download_errors(name: str) -> Iterator[None]:
    """A download that finds no network becomes SR-N801; any other trouble with it SR-M308."""
    try:
        yield
    except (StillroomError, MemoryError):
        raise
    except Exception as problem:
        if is_offline_error(problem):
            raise WeightsNotCached(file=f"the trained weights of {name}", problem=_line(problem)) from problem
        raise PretrainedWeightsNotFound(model=name, problem=_line(problem), near="") from problem


@contextmanager
def hub_offline_if_unreachable(wanted: bool) -> Iterator[None]:
    """Tell the Hugging Face library that there is no network where its host has no address.

    It would find out by itself, in five attempts that take most of a minute; and offline it looks into its cache first.
    """
    import huggingface_hub.constants as constants

    before = constants.HF_HUB_OFFLINE
    try:
        if wanted and not before and not getproxies():  # a proxy may know addresses that this machine does not
            constants.HF_HUB_OFFLINE = not _resolves(urlsplit(constants.ENDPOINT).hostname)
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _resolves(host: str | None) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


def is_offline_error(problem: BaseException | None) -> bool:
    """Whether a network that can't be reached is behind an error, however many times it was wrapped."""
    seen = set[int]()
    while problem is not None and id(problem) not in seen:
        seen.add(id(problem))
        unreachable = isinstance(problem, URLError) and not isinstance(problem, HTTPError)
        if unreachable or isinstance(problem, UNREACHABLE) or type(problem).__name__ in UNREACHABLE_NAMES:
            return True
        problem = problem.__cause__ or problem.__context__
    return False


def resolve_input_size(network: Network, name: str, size: int, *, own: int | None, fixed: bool = False) -> Network:
    """The network with its image size decided, after one black image has gone through it.

    A module that takes the data's own size gets it. One that can't gets the smallest of `LADDER` that it takes, or
    else its own, and the network resizes: digits of 8 px reach a convnext as 32 px, not as 224 at 49 times the cost.

    Args:
        network: freshly made; `size` and, if it disagrees with nothing the user asked for, `classes` are set here.
        name: for messages.
        size: side of the data's images.
        own: the size that the module was made for, if it says so.
        fixed: the module takes no other size than `own`.

    Raises:
        WrongOutputShape: SR-M305 it runs on neither size, or what comes out is not what `network.answers` promises.
    """
    larger = [*(step for step in CANDIDATE_SIZES if size < step < own), own] if own else []
    sizes = [own] if fixed and own else [size, *larger]
    problem: Exception | None = None
    for tried in sizes:
        network.size = tried if fixed or tried != size else None
        try:
            network.classes = _outputs(network, name, tried)
            return network
        except StillroomError:
            raise
        except Exception as trouble:
            problem = problem or trouble
    raise WrongOutputShape(model=name, problem=f"{size} px: {_line(problem)}") from problem


def last_classifier(module: nn.Module, classes: int) -> tuple[str, ...]:
    """The last linear layer, or 1x1 convolution, with K outputs: () when there is none."""
    found = ""
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear) and part.out_features == classes:
            found = name
        if isinstance(part, nn.Conv2d) and part.out_channels == classes and part.kernel_size == (1, 1):
            found = name
    return (found,) if found else ()


@torch.no_grad()
def _outputs(network: Network, name: str, size: int) -> int:
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        black = torch.zeros(1, network.channels, size, size, device=network.mean.device)
        said = network.module(network.preprocess(black))
    finally:
        for module in training:
            module.training = True
    found, wanted = _shape(said), OUTPUT_SHAPES[network.output_kind]
    outputs = found[wanted.index("K")] - 4 * (network.output_kind == "boxes") if len(found) == len(wanted) else 0
    if found[:1] != (1,) or outputs < 1:
        shape = str(wanted).replace("'", "").replace("K", "4 + K" if network.output_kind == "boxes" else "K")
        raise WrongOutputShape(model=name, problem=f"one image gives an output of shape {found}, not {shape}")
    if network.classes not in (0, outputs):
        raise WrongOutputShape(model=name, problem=f"it has {outputs} outputs, and the data {network.classes} classes")
    return outputs


def _shape(said: Any) -> tuple[int, ...]:
    return tuple(extract_logits(said).shape)


def _line(problem: Any) -> str:
    """The first line of an error, with its kind where it says little by itself."""
    lines = str(problem).strip().splitlines()
    text = lines[0][:300] if lines else ""
    return text if len(text) > 20 else f"{type(problem).__name__}: {text}".rstrip(": ")

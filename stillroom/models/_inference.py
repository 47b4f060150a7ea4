"""Inference in evaluation mode and without gradients, after which training modes are restored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def infer(network: nn.Module, images: Tensor, taps: tuple[str, ...] = ()) -> Any:
    """The output of a network in evaluation mode, without gradients; its own mode is restored."""
    training = network.training
    try:
        return network.to(images.device).eval()(images, taps)
    finally:
        network.train(training)


@contextmanager
def eval_mode(networks: Iterable[object]) -> Iterator[None]:
    """Evaluation mode for all modules; afterwards each submodule's own mode, which frozen ones keep during training."""
    modules = [part for network in networks if isinstance(network, nn.Module) for part in network.modules()]
    modes = [part.training for part in modules]
    try:
        for part in modules:
            part.training = False
        yield
    finally:
        for part, mode in zip(modules, modes, strict=True):
            part.training = mode

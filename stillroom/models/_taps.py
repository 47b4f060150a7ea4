"""Hearing what goes into and comes out of the modules inside a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from stillroom.config.plugins import near
from stillroom.models._errors import UnknownTap

INPUT_SUFFIX = ":in"
"""Behind a module's name: what it reads, not what it gives. `fc:in` is what the classifier `fc` sees."""


@contextmanager
def capture_taps(module: nn.Module, taps: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """While it is open, the dictionary fills with copies of what the named parts say; each keeps its last value.

    Raises:
        UnknownTap: SR-M306 there is no part of that name.
    """
    modules, heard, hooks = dict(module.named_modules()), dict[str, Tensor](), []
    for tap in taps:
        name = tap.removesuffix(INPUT_SUFFIX)
        if name not in modules or not name:
            raise UnknownTap(tap=tap, near=near(name, [known for known in modules if known]))
    try:
        for tap in taps:
            part = modules[tap.removesuffix(INPUT_SUFFIX)]
            if tap.endswith(INPUT_SUFFIX):
                hooks.append(part.register_forward_pre_hook(_ear_before(tap, heard)))
            else:
                hooks.append(part.register_forward_hook(_ear(tap, heard)))
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def first_tensor(said: Any) -> Tensor | None:
    """The tensor in what a module takes or returns, the first one where there are several; None without any."""
    if isinstance(said, Tensor):
        return said
    if isinstance(said, dict):
        said = tuple(said.values())
    if isinstance(said, (tuple, list)):
        return next((found for part in said if (found := first_tensor(part)) is not None), None)
    inner = getattr(said, "logits", None)
    return inner if isinstance(inner, Tensor) else None


def channels_first(feature: Tensor) -> Tensor:
    """[B, h, h, C], as Swin transformers have it, as [B, C, h, h]; anything else as it is.

    Images are square here, so a map has its two equal sides last, or its channels are.
    """
    if feature.ndim == 4 and feature.shape[1] == feature.shape[2] != feature.shape[3]:
        return feature.permute(0, 3, 1, 2)
    return feature


# Copies, because a later step in place, such as ReLU(inplace=True) after a tapped norm, would change what was heard.


def _ear(name: str, heard: dict[str, Tensor]) -> Any:
    def hook(module: nn.Module, given: Any, said: Any) -> None:
        if (found := first_tensor(said)) is not None:
            heard[name] = channels_first(found).clone()

    return hook


def _ear_before(name: str, heard: dict[str, Tensor]) -> Any:
    def hook(module: nn.Module, given: Any) -> None:
        if (found := first_tensor(given)) is not None:
            heard[name] = channels_first(found).clone()

    return hook


def split_tap(tap: str) -> tuple[int, str]:
    """`2/layer3` -> (2, "layer3"); a name without a number is the first's."""
    number, _, name = tap.partition("/")
    return (int(number), name) if number.isdecimal() and name else (1, tap)

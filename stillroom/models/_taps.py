"""Capturing the inputs and outputs of submodules during a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from stillroom.config.plugins import near
from stillroom.models._errors import UnknownTap

INPUT_SUFFIX = ":in"
"""Suffix of a submodule's name that taps its input, not its output: `fc:in` is the input of the classifier `fc`."""


@contextmanager
def capture_taps(module: nn.Module, taps: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """A dictionary that receives copies of the tapped tensors during forward passes; each tap keeps its last value.

    Raises:
        UnknownTap: SR-M306 there is no submodule of that name.
    """
    modules, captured, hooks = dict(module.named_modules()), dict[str, Tensor](), []
    for tap in taps:
        name = tap.removesuffix(INPUT_SUFFIX)
        if name not in modules or not name:
            raise UnknownTap(tap=tap, near=near(name, [other for other in modules if other]))
    try:
        for tap in taps:
            submodule = modules[tap.removesuffix(INPUT_SUFFIX)]
            if tap.endswith(INPUT_SUFFIX):
                hooks.append(submodule.register_forward_pre_hook(_input_hook(tap, captured)))
            else:
                hooks.append(submodule.register_forward_hook(_output_hook(tap, captured)))
        yield captured
    finally:
        for hook in hooks:
            hook.remove()


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor in the arguments or the return value of a module; None if there is none."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return next((found for item in value if (found := first_tensor(item)) is not None), None)
    logits = getattr(value, "logits", None)
    return logits if isinstance(logits, Tensor) else None


def channels_first(feature: Tensor) -> Tensor:
    """A feature map [B, h, h, C], as of Swin transformers, as [B, C, h, h]; other features unchanged.

    Images are square here, so the two equal sides of a map tell where the channels are.
    """
    if feature.ndim == 4 and feature.shape[1] == feature.shape[2] != feature.shape[3]:
        return feature.permute(0, 3, 1, 2)
    return feature


def split_tap(tap: str) -> tuple[int, str]:
    """The number of the teacher and the name: `2/layer3` -> (2, "layer3"); without a number it is the first teacher."""
    number, _, name = tap.partition("/")
    return (int(number), name) if number.isdecimal() and name else (1, tap)


# Hooks store copies, because a later in-place operation, such as ReLU(inplace=True), would modify the tensor.


def _output_hook(tap: str, captured: dict[str, Tensor]) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        if (found := first_tensor(output)) is not None:
            captured[tap] = channels_first(found).clone()

    return hook


def _input_hook(tap: str, captured: dict[str, Tensor]) -> Any:
    def hook(module: nn.Module, inputs: Any) -> None:
        if (found := first_tensor(inputs)) is not None:
            captured[tap] = channels_first(found).clone()

    return hook

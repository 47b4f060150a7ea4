"""The state dict (names and tensors) in the content of a weights file.

Run as a program (`python -m stillroom.models._state IN OUT`) it unpickles a file, *including any code in it*, and
writes safetensors. `_weights` runs it only for files whose hash the user has given.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
"""Keys under which training scripts save the weights; the first one present is used."""

PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile add to every name."""


class Unusable(ValueError):
    """The content has no state dict."""


def tensors(content: Any) -> dict[str, Tensor]:
    """The state dict in `content`: contiguous tensors, floating-point ones as float32, by the module's own names.

    Args:
        content: a state dict, a module, or a mapping with one of `WRAPPERS`.

    Raises:
        Unusable: there is none.
    """
    for wrapper in WRAPPERS:
        inner = content.get(wrapper) if isinstance(content, Mapping) else None
        if isinstance(inner, (Mapping, torch.nn.Module)):
            return tensors(inner)
    if isinstance(content, torch.nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping):
        raise Unusable(f"contains a {type(content).__name__}, not a state dict")
    found = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not found or len(found) < len(content):
        other = next(
            (f"{key!r}: {type(value).__name__}" for key, value in content.items() if key not in found), "nothing"
        )
        raise Unusable(f"contains no state dict (it has {other})")
    found = _unwrapped_network(found)
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in found):
            found = {key.removeprefix(prefix): value for key, value in found.items()}
    return {key: _normal_form(value) for key, value in found.items()}


def _unwrapped_network(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The module's state if this is the state of a `Network`, which also has the pixel statistics."""
    rest = {key: value for key, value in found.items() if key not in ("mean", "std")}
    wrapped = len(rest) == len(found) - 2 and rest and all(key.startswith("module.") for key in rest)
    return rest if wrapped else found


def _normal_form(value: Tensor) -> Tensor:
    value = value.detach()
    return (value.float() if value.is_floating_point() else value).contiguous()


def _main(source: str, target: str) -> None:
    from safetensors.torch import save_file

    state = tensors(torch.load(source, map_location="cpu", weights_only=False))
    save_file({key: value.clone() for key, value in state.items()}, target)


if __name__ == "__main__":
    _main(*sys.argv[1:3])

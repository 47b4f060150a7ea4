"""From whatever a file of weights holds to a state dict: names and tensors.

Run as a program (`python -m stillroom.models._state IN OUT`), it reads a pickle *with all that the pickle may do* and
writes safetensors. `_weights` starts it for a file whose hash the user has given, and for no other.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
"""Where training scripts keep the weights in what they save; the first that is there counts."""

PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""


class Unusable(ValueError):
    """What was read holds no state dict."""


def tensors(held: Any) -> dict[str, Tensor]:
    """The state dict in `held`: floating-point tensors as float32, contiguous, under the module's own names.

    Args:
        held: a state dict, a module that has one, or a mapping with one of `WRAPPERS`.

    Raises:
        Unusable: there is none.
    """
    for wrapper in WRAPPERS:
        inner = held.get(wrapper) if isinstance(held, Mapping) else None
        if isinstance(inner, (Mapping, torch.nn.Module)):
            return tensors(inner)
    if isinstance(held, torch.nn.Module):
        held = held.state_dict()
    if not isinstance(held, Mapping):
        raise Unusable(f"holds a {type(held).__name__}, not a state dict")
    found = {key: value for key, value in held.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not found or len(found) < len(held):
        strange = next(
            (f"{key!r}: {type(value).__name__}" for key, value in held.items() if key not in found), "nothing"
        )
        raise Unusable(f"holds no state dict (it has {strange})")
    found = _without_wrapper(found)
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in found):
            found = {key.removeprefix(prefix): value for key, value in found.items()}
    return {key: _plain(value) for key, value in found.items()}


def _without_wrapper(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """A saved `Network` has its pixel statistics beside the module; the module's weights are what is wanted."""
    rest = {key: value for key, value in found.items() if key not in ("mean", "std")}
    wrapped = len(rest) == len(found) - 2 and rest and all(key.startswith("module.") for key in rest)
    return rest if wrapped else found


def _plain(value: Tensor) -> Tensor:
    value = value.detach()
    return (value.float() if value.is_floating_point() else value).contiguous()


def _main(source: str, target: str) -> None:
    from safetensors.torch import save_file

    state = tensors(torch.load(source, map_location="cpu", weights_only=False))
    save_file({key: value.clone() for key, value in state.items()}, target)


if __name__ == "__main__":
    _main(*sys.argv[1:3])

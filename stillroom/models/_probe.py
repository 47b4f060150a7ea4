"""Probing a new model with one image: which input size it accepts, and the shape of its output."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stillroom.errors import StillroomError
from stillroom.models._errors import WrongOutputShape
from stillroom.models._library_errors import first_line
from stillroom.models._logits import extract_logits
from stillroom.models.network import Network

OUTPUT_SHAPES: dict[str, tuple[Any, ...]] = {
    "classes": (1, "K"),
    "pixels": (1, "K", "h", "w"),
    "boxes": (1, "A", "K"),
    "vector": (1, "K"),
}
"""Shape of the output for one image, by output kind; the last axis is 4 + K for boxes, and K = D for vectors."""

CANDIDATE_SIZES = (32, 64, 96, 128, 160, 192)
"""Sides, in pixels, to which images are enlarged if a model can't take their own size."""


def resolve_input_size(network: Network, name: str, size: int, *, own: int | None, fixed: bool = False) -> Network:
    """Set the input size of a network by running it on one black image.

    The data's own size is used if the module accepts it. Otherwise it is the smallest of `CANDIDATE_SIZES` that the
    module accepts, or else the module's own, and the network resizes: digits of 8 px are enlarged to 32 px for a
    convnext, not to 224 px at 49 times the cost.

    Args:
        network: newly built; `size` is set, and `classes` if it was 0.
        name: for error messages.
        size: side of the data's images.
        own: the size that the module was built for, if it states one.
        fixed: the module accepts no other size than `own`.

    Raises:
        WrongOutputShape: SR-M305 it runs at no size, or its output does not have the shape of `network.output_kind`.
    """
    larger = [*(side for side in CANDIDATE_SIZES if size < side < own), own] if own else []
    sides = [own] if fixed and own else [size, *larger]
    first_problem: Exception | None = None
    for side in sides:
        network.size = side if fixed or side != size else None
        try:
            network.classes = _outputs(network, name, side)
            return network
        except StillroomError:
            raise
        except Exception as problem:
            first_problem = first_problem or problem
    raise WrongOutputShape(model=name, problem=f"{size} px: {first_line(first_problem)}") from first_problem


def last_classifier(module: nn.Module, classes: int) -> tuple[str, ...]:
    """The name of the last linear layer or 1x1 convolution with K outputs; () if there is none."""
    found = ""
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear) and part.out_features == classes:
            found = name
        if isinstance(part, nn.Conv2d) and part.out_channels == classes and part.kernel_size == (1, 1):
            found = name
    return (found,) if found else ()


@torch.no_grad()
def _outputs(network: Network, name: str, size: int) -> int:
    """K, from the output for one black image."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        black = torch.zeros(1, network.channels, size, size, device=network.mean.device)
        output = network.module(network.preprocess(black))
    finally:
        for module in training:
            module.training = True
    found, wanted = tuple(extract_logits(output).shape), OUTPUT_SHAPES[network.output_kind]
    outputs = found[wanted.index("K")] - 4 * (network.output_kind == "boxes") if len(found) == len(wanted) else 0
    if found[:1] != (1,) or outputs < 1:
        shape = str(wanted).replace("'", "").replace("K", "4 + K" if network.output_kind == "boxes" else "K")
        raise WrongOutputShape(model=name, problem=f"one image gives an output of shape {found}, not {shape}")
    if network.classes not in (0, outputs):
        raise WrongOutputShape(model=name, problem=f"it has {outputs} outputs, and the data {network.classes} classes")
    return outputs

"""What it costs to round one layer, everything else staying in floats."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor

from stillroom.compress._observe import PART, Seen
from stillroom.models.network import Network
from stillroom.models.surgery import Edit
from stillroom.models.surgery.rounded import Rounding
from stillroom.types import OutputKind

IMAGES = 64
"""Images that are looked at, evenly spread: every layer costs a pass over all of them."""


def roundings(network: Network, edit: Edit, seen: Mapping[str, Seen]) -> dict[str, Rounding]:
    """Make layers round, in place, with ranges from what they read; name -> how it rounds."""
    network.apply_edits([edit])
    found = {}
    for name in edit["layers"]:
        found[name] = cast(Rounding, network.module.get_submodule(name).rounding)
        found[name].begin(seen[name].low, seen[name].high, float(seen[name].size.mean()))
    return found


@torch.no_grad()
def sensitivity(network: Network, edit: Edit, seen: Mapping[str, Seen], images: Tensor) -> dict[str, float]:
    """Name -> how far the prediction moves when this layer alone is rounded, the farthest first.

    For classes, of images or pixels, the mean of KL(p || q) with p the network's softmax and q that of the rounded one,
    in nats; for others the mean squared difference. A layer whose rounding makes no sense of it at all, because what
    comes out is not finite, stands before all others.

    Args:
        network: in evaluation mode, on the CPU; left as it is.
        edit: of kind `rounded`, for the layers in question.
        seen: what they read.
        images: [n, C, H, W] in 0..1; about `IMAGES` of them are looked at.
    """
    parts = images[:: max(1, len(images) // IMAGES)].split(PART)
    expected = [network(part).pred for part in parts]
    copy = deepcopy(network)
    switches = roundings(copy, edit, seen)
    for switch in switches.values():
        switch.active = False
    costs: dict[str, float] = {}
    for name, switch in switches.items():
        switch.active = True
        moved = [_apart(copy(part).pred, pred, network.output_kind) for part, pred in zip(parts, expected, strict=True)]
        costs[name] = float(torch.cat(moved).mean().nan_to_num(float("inf")))
        switch.active = False
    return dict(sorted(costs.items(), key=lambda cost: -cost[1]))


def _apart(said: Tensor, expected: Tensor, output_kind: OutputKind) -> Tensor:
    """[B]."""
    if output_kind in ("classes", "pixels"):
        p, q = expected.float().log_softmax(1), said.float().log_softmax(1)
        return (p.exp() * (p - q)).sum(1).clamp(min=0).flatten(1).mean(1) if p.ndim > 2 else (p.exp() * (p - q)).sum(1)
    return (said - expected).float().square().flatten(1).mean(1)

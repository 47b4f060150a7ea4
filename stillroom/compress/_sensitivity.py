"""The effect of quantising a single layer on the network's output."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor

from stillroom.compress._input_stats import PART, InputStats
from stillroom.models.network import Network
from stillroom.models.surgery import Edit
from stillroom.models.surgery.rounded import Rounding
from stillroom.types import OutputKind

IMAGES = 64
"""Number of images, evenly spaced; each layer needs a pass over all of them."""


def apply_rounding(network: Network, edit: Edit, stats: Mapping[str, InputStats]) -> dict[str, Rounding]:
    """Make layers round, in place, with ranges from their input statistics; name -> its rounding."""
    network.apply_edits([edit])
    roundings = {}
    for name in edit["layers"]:
        roundings[name] = cast(Rounding, network.module.get_submodule(name).rounding)
        roundings[name].begin(stats[name].low, stats[name].high, float(stats[name].mean_abs.mean()))
    return roundings


@torch.no_grad()
def sensitivity(network: Network, edit: Edit, stats: Mapping[str, InputStats], images: Tensor) -> dict[str, float]:
    """Name -> change of the output when only this layer is rounded, the largest first.

    For logits, of images or pixels, the mean of KL(p || q) in nats, p the network's softmax and q that of the rounded
    one; for other outputs the mean squared difference. A layer whose rounding gives outputs that are not finite comes
    first.

    Args:
        network: in evaluation mode, on the CPU; it is not changed.
        edit: of kind `rounded`, for the layers in question.
        stats: of the layers' inputs.
        images: [n, C, H, W] in 0..1; about `IMAGES` of them are used.
    """
    parts = images[:: max(1, len(images) // IMAGES)].split(PART)
    expected = [network(part).pred for part in parts]
    copy = deepcopy(network)
    roundings = apply_rounding(copy, edit, stats)
    for rounding in roundings.values():
        rounding.active = False
    changes_by_layer: dict[str, float] = {}
    for name, rounding in roundings.items():
        rounding.active = True
        changes = [
            _output_change(copy(part).pred, pred, network.output_kind)
            for part, pred in zip(parts, expected, strict=True)
        ]
        changes_by_layer[name] = float(torch.cat(changes).mean().nan_to_num(float("inf")))
        rounding.active = False
    return dict(sorted(changes_by_layer.items(), key=lambda change: -change[1]))


def _output_change(output: Tensor, expected: Tensor, output_kind: OutputKind) -> Tensor:
    """[B]."""
    if output_kind in ("classes", "pixels"):
        p, q = expected.float().log_softmax(1), output.float().log_softmax(1)
        return (p.exp() * (p - q)).sum(1).clamp(min=0).flatten(1).mean(1) if p.ndim > 2 else (p.exp() * (p - q)).sum(1)
    return (output - expected).float().square().flatten(1).mean(1)

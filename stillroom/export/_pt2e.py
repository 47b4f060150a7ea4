"""Static int8 by torchao's PT2E, for XNNPACK: both as eight-bit integers, weights and what layers read and give out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from stillroom.export._wrapper import traced_pair
from stillroom.models.network import Network
from stillroom.models.surgery import grid

SMALLEST = 2**-20
"""Least step of a weight's grid. The library's own, 2^-12, is the finest grid of a channel whose largest weight is
below 0.03: its weights would be rounded once more, off the grid that they were trained on."""

PART = 8
"""Images at a time in calibration: every activation of them is in memory at once."""


def quantise(wrapper: nn.Module, example: Tensor, batches: Iterable[Tensor]) -> nn.Module:
    """A program of quantise and dequantise steps that computes what `wrapper` does on eight bits.

    Weights int8, symmetric, one scale absmax / 127 for an output channel, batch norms folded in before; activations
    int8 and asymmetric, one scale a tensor, its range the one that loses least of the histogram of what was seen.
    Left in floats are products of two activations (attention), layers that `forms.grid` lists as `float`, and sums
    that no ReLU follows, for the reason that `_graph.delicate` gives.

    Args:
        wrapper: images [B, C, H, W] in 0..1 to a tensor.
        example: [B, C, H, W], any image of the right shape.
        batches: image batches [B, C, H, W] in 0..1 whose activations set the ranges.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    # With B free, so that calibration may show several images at once.
    traced = torch.export.export(wrapper, (traced_pair(example),), dynamic_shapes=({0: torch.export.Dim("B")},))
    quantiser = XNNPACKQuantizer().set_global(_config())
    quantiser.set_filter_function(_integers(exact_layers(wrapper)))
    prepared = prepare_pt2e(traced.module(check_guards=False), quantiser)
    with torch.no_grad():
        for batch in batches:
            for part in batch.split(PART):
                prepared(part.detach().float().cpu())
    converted: nn.Module = convert_pt2e(prepared)
    return converted


def exact_layers(wrapper: nn.Module) -> set[str]:
    """Full names, below `wrapper`, of the layers that stay in floats."""
    found = set[str]()
    for name, part in wrapper.named_modules():
        if isinstance(part, Network):
            found |= {f"{name}.module.{layer}" for layer in (grid.find_grid(part.edits) or {}).get("float", ())}
    return found


def _config() -> Any:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import get_symmetric_quantization_config
    from torchao.quantization.pt2e.observer import PerChannelMinMaxObserver

    config = get_symmetric_quantization_config(is_per_channel=True)
    observer = PerChannelMinMaxObserver.with_args(eps=SMALLEST)
    return replace(config, weight=replace(config.weight, observer_or_fake_quant_ctr=observer))


def _integers(exact: set[str]) -> Callable[[Node], bool]:
    """Whether a step of the program is computed in integers."""
    add, rectifiers = torch.ops.aten.add.Tensor, {torch.ops.aten.relu.default, torch.ops.aten.relu_.default}
    rectifiers |= {torch.ops.aten.hardtanh.default, torch.ops.aten.hardtanh_.default}
    adds = {add, torch.ops.aten.add_.Tensor}

    def wanted(node: Node) -> bool:
        if node.target in adds and not all(user.target in rectifiers for user in node.users):
            return False
        stack = node.meta.get("nn_module_stack", {})
        return exact.isdisjoint(path for path, _ in stack.values()) if exact else True

    return wanted

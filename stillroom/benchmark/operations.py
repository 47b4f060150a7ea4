"""Work and size of a network, counted rather than timed."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stillroom.models._onnx import Program


def macs(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one image of `shape` (C, H, W): convolutions, matrix products and attention.

    A MAC is one multiplication and one addition, so FLOPs = 2 x MACs. Normalisation, activation, pooling and resizing
    are not counted, as is usual. Counted on a copy without data: it costs no memory, leaves the network's buffers and
    hooks alone, and attention takes the plain path, which the counter knows, instead of a fused one, which it misses.
    A part that torch can't look into, an ONNX file, was counted when it was opened, for images of the size it gets.
    """
    # Batch norm in training mode would want more than one value per channel, dropout a generator for meta tensors.
    ghost = deepcopy(network).to("meta").eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        ghost(torch.empty(1, *shape, device="meta"))
    return counter.get_total_flops() // 2 + sum(program.macs for program in _programs(network))


def parameters(network: nn.Module) -> int:
    """Numbers that training may change; one shared by two layers is counted once. Buffers are not counted.

    Of an ONNX file all its weights, which nothing can change; the statistics of its norms are among them.
    """
    own = sum(parameter.numel() for parameter in network.parameters())
    return own + sum(program.numbers for program in _programs(network))


def _programs(network: nn.Module) -> list[Program]:
    return [part for part in network.modules() if isinstance(part, Program)]

"""Work and size of a network, counted rather than timed."""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stillroom.models._onnx_program import OnnxProgram
from stillroom.models.network import Network
from stillroom.models.surgery import grid as grids


def macs(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one image of `shape` (C, H, W): convolutions, matrix products and attention.

    A MAC is one multiplication and one addition, so FLOPs = 2 x MACs. Normalisation, activation, pooling and resizing
    are not counted, as is usual. Counted on a copy without data: it costs no memory, leaves the network's buffers and
    hooks alone, and attention takes the plain path, which the counter knows, instead of a fused one, which it misses.
    A part that torch can't look into, an ONNX file, was counted when it was opened, for images of the size it gets.
    """
    return macs_by_module(network, torch.empty(1, *shape))[""] + sum(program.macs for program in _programs(network))


def macs_by_module(module: nn.Module, example: Tensor) -> dict[str, int]:
    """Multiply-accumulates by the name of the part; those of the whole module under "".

    Args:
        module: what is counted; left as it is.
        example: [1, C, H, W], as the module takes it; only its shape and type count.
    """
    # Batch norm in training mode would want more than one value per channel, dropout a generator for meta tensors.
    ghost = deepcopy(module).to("meta").eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        ghost(torch.empty_like(example, device="meta"))
    root = f"{type(ghost).__name__}."
    counts = {name: sum(by_operation.values()) // 2 for name, by_operation in counter.get_flop_counts().items()}
    found = {name.removeprefix(root): count for name, count in counts.items() if name.startswith(root)}
    return found | {"": counter.get_total_flops() // 2}


def parameters(network: nn.Module) -> int:
    """Numbers that training may change; one shared by two layers is counted once. Buffers are not counted.

    Of an ONNX file all its weights, which nothing can change; the statistics of its norms are among them.
    """
    own = sum(parameter.numel() for parameter in network.parameters())
    return own + sum(program.numbers for program in _programs(network))


def _programs(network: nn.Module) -> list[OnnxProgram]:
    return [part for part in network.modules() if isinstance(part, OnnxProgram)]


def stored_bytes(network: Network) -> int:
    """Bytes that the network's numbers take where each is kept in as many bits as it needs.

    Weights on a grid take the grid's bits, and each scale that they share four bytes; all other numbers four each.
    """
    numbers, grid = parameters(network), grids.find_grid(network.edits)
    if grid is None:
        return 4 * numbers
    weights = [network.module.get_submodule(name).get_parameter("weight") for name in grid["layers"]]
    on_it = sum(weight.numel() for weight in weights)
    scales = sum(weight.numel() // grid["group"] if grid["group"] else len(weight) for weight in weights)
    return math.ceil(on_it * grid["bits"] / 8) + 4 * (numbers - on_it + scales)

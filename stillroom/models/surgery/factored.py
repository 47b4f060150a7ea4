"""Layers replaced by a few thin ones in a row, which stand in a `Sequential` of the layer's name.

    {"kind": "factored", "layers": {"conv1": {"way": "tucker", "ranks": [16, 24]}}}

With C inputs, O outputs, a kernel of h x w and ranks r:

way      layers                                                     parameters
svd      h x w, C -> r; 1 x 1, r -> O; of a linear layer two         r (C h w + O)
tucker   1 x 1, C -> r1; h x w, r1 -> r2; 1 x 1, r2 -> O             C r1 + r1 r2 h w + r2 O
cp       1 x 1, C -> r; h x 1 and 1 x w on each of r; 1 x 1, r -> O  r (C + h + w + O)
spatial  h x 1, C -> r; 1 x w, r -> O                                r (C h + w O)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

Way = Literal["svd", "tucker", "cp", "spatial"]
RANKS = {"svd": 1, "tucker": 2, "cp": 1, "spatial": 1}


def apply(module: nn.Module, edit: Mapping[str, Any]) -> None:
    """Replace the named layers by thin ones with new weights.

    Raises:
        ValueError: a layer that is not there or can't be factorised, a way that is not known, ranks out of range.
    """
    layers = edit.get("layers", {})
    if not isinstance(layers, Mapping) or not all(isinstance(said, Mapping) for said in layers.values()):
        raise ValueError("`layers` is a table of tables")
    made = {}
    for name, said in layers.items():
        try:
            layer = module.get_submodule(name)
        except AttributeError as problem:
            raise ValueError(f"there is no part {name!r}") from problem
        if not name or not can_factorize(layer):
            raise ValueError(f"{name!r} is a {type(layer).__name__}, which can't be factorised")
        made[name] = thin_layers(layer, said.get("way"), said.get("ranks"))
    for name, parts in made.items():
        module.set_submodule(name, parts)


def can_factorize(layer: nn.Module) -> bool:
    """Whether a layer is a plain linear one or a plain ungrouped convolution; subclasses may compute anything."""
    return type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.groups == 1)


def max_ranks(layer: nn.Module, way: str) -> list[int]:
    """The ranks above which a factorisation says nothing more than the layer; for cp, what no kernel needs more of.

    Raises:
        ValueError: a way that is not known, or not for this layer.
    """
    if way not in RANKS or (isinstance(layer, nn.Linear) and way != "svd"):
        raise ValueError(f"a {type(layer).__name__} is not factorised by {way!r}")
    if isinstance(layer, nn.Linear):
        return [min(layer.in_features, layer.out_features)]
    assert isinstance(layer, nn.Conv2d)
    inside, outside, (high, wide) = layer.in_channels, layer.out_channels, layer.kernel_size
    area = high * wide
    return {
        "svd": [min(inside * area, outside)],
        "tucker": [min(inside, outside * area), min(outside, inside * area)],
        "cp": [min(inside * outside, inside * area, outside * area)],
        "spatial": [min(inside * high, outside * wide)],
    }[way]


def thin_layers(layer: nn.Module, way: Any, ranks: Any) -> nn.Sequential:
    """New thin layers that take and give what `layer` does: its stride, padding, dilation; the bias on the last.

    Raises:
        ValueError: as `reform`.
    """
    limits = max_ranks(layer, way)
    whole = isinstance(ranks, list) and len(ranks) == len(limits) and all(type(rank) is int for rank in ranks)
    if not whole or not all(1 <= rank <= limit for rank, limit in zip(ranks, limits, strict=True)):
        raise ValueError(f"ranks for {way!r} are {len(limits)} whole numbers up to {limits}, not {ranks!r}")
    parts = _linear(layer, ranks[0]) if isinstance(layer, nn.Linear) else _convolutions(layer, way, ranks)
    weight: Any = layer.weight
    made = nn.Sequential(*parts).to(device=weight.device, dtype=weight.dtype)
    return made.requires_grad_(weight.requires_grad).train(layer.training)


def _linear(layer: nn.Linear, rank: int) -> list[nn.Module]:
    first = nn.Linear(layer.in_features, rank, bias=False)
    return [first, nn.Linear(rank, layer.out_features, bias=layer.bias is not None)]


def _convolutions(layer: Any, way: str, ranks: list[int]) -> list[nn.Module]:
    inside, outside, bias, first, last = (
        layer.in_channels,
        layer.out_channels,
        layer.bias is not None,
        ranks[0],
        ranks[-1],
    )
    if way == "svd":
        return [_along(layer, (0, 1), inside, last), nn.Conv2d(last, outside, 1, bias=bias)]
    if way == "spatial":
        return [_along(layer, (0,), inside, last), _along(layer, (1,), last, outside, bias=bias)]
    before, after = nn.Conv2d(inside, first, 1, bias=False), nn.Conv2d(last, outside, 1, bias=bias)
    if way == "tucker":
        return [before, _along(layer, (0, 1), first, last), after]
    return [before, *(_along(layer, (axis,), first, first, groups=first) for axis in (0, 1)), after]


def _along(
    layer: Any, axes: tuple[int, ...], inside: int, outside: int, groups: int = 1, bias: bool = False
) -> nn.Module:
    """A convolution that looks and moves as `layer` does along `axes`, and at single pixels along the others."""

    def of(pair: tuple[int, int], other: int) -> tuple[int, int]:
        down, across = (pair[axis] if axis in axes else other for axis in (0, 1))
        return down, across

    return nn.Conv2d(
        inside,
        outside,
        of(layer.kernel_size, 1),
        stride=of(layer.stride, 1),
        padding=layer.padding if isinstance(layer.padding, str) else of(layer.padding, 0),
        dilation=of(layer.dilation, 1),
        groups=groups,
        bias=bias,
        padding_mode=layer.padding_mode,
    )

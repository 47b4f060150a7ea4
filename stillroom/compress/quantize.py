"""Quantisation: training with rounded weights and activations, after which weights lie on a grid of few bits."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from stillroom.compress._awq import best_scale
from stillroom.compress._errors import AllLayersKept, NothingToQuantize
from stillroom.compress._input_stats import InputStats, collect_input_stats
from stillroom.compress._sensitivity import apply_rounding, sensitivity
from stillroom.compress.compression import CompressionContext
from stillroom.models.network import Network
from stillroom.models.surgery.rounded import bake_rounding

Ranges = Literal["minmax", "learned"]
Scaling = Literal["awq", "none"]


class Quantize:
    """Quantisation-aware training. Jacob et al. 2018, https://arxiv.org/abs/1712.05877; with a teacher Mishra & Marr
    2018, https://arxiv.org/abs/1711.05852.

    During training each convolution and linear layer uses rounded weights (a symmetric grid for each output channel)
    and rounded inputs (one grid for all channels); the gradient ignores rounding (straight-through). The result has
    plain layers, whose float weights lie on the grids: with 8 bits an int8 file contains exactly these integers, and
    its runtime determines the ranges of activations itself. Without training it is post-training quantisation.

    The input of the first convolution and outputs are not rounded, as in int8 files. Layers that transform their
    weights, and layers whose weights are used by others, stay in floats.

    Use: before an int8 file that differs too much from its network, mostly for networks with depthwise convolutions;
    with `weights_only` for files of 4 bits.

    Avoid: for int8 files that agree without it. Fewer than 8 bits with activations: no runtime here computes with
    those, and an int8 file rounds such weights once more, by up to max|w| / 254.

    Args:
        bits: of weights, 2..8.
        activations: bits of layers' inputs, 2..8; 0 leaves them in floats.
        weights_only: linear layers only, with a grid for each `group` of inputs, and activations in floats.
        group: of `weights_only`: 16, 32, 64, 128 or 256; in an int4 file as many weights share a scale.
        scaling: of `weights_only`: "awq" scales important channels first, see `_awq`; "none" only rounds.
        ranges: of activations: "minmax" tracks the smallest and largest values, "learned" trains the step size.
        keep: number of layers, those most sensitive to rounding, that stay in floats, also in exported files.

    Raises:
        ValueError: an argument is out of its range; `weights_only` with other than 4 or 8 bits.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    rounds = 1
    interim_teacher: Literal["teacher", "before"] = "teacher"

    def __init__(
        self,
        *,
        bits: Annotated[int, Ge(2), Le(8)] = 8,
        activations: Annotated[int, Ge(0), Le(8)] = 8,
        weights_only: bool = False,
        group: Literal[16, 32, 64, 128, 256] = 32,
        scaling: Scaling = "awq",
        ranges: Ranges = "minmax",
        keep: Annotated[int, Ge(0)] = 0,
    ):
        if not 2 <= bits <= 8:
            raise ValueError(f"bits is 2..8, got {bits}")
        if activations not in (0, *range(2, 9)):
            raise ValueError(f"activations: must be 0 or 2..8, got {activations}")
        if weights_only and bits not in (4, 8):
            raise ValueError(f"bits is 4 or 8 with weights_only, got {bits}")
        if group not in (16, 32, 64, 128, 256):
            raise ValueError(f"group is 16, 32, 64, 128 or 256, got {group}")
        for name, given, known in (("scaling", scaling, Scaling), ("ranges", ranges, Ranges)):
            if given not in get_args(known):
                raise ValueError(f"{name}: must be one of {', '.join(get_args(known))}, got {given!r}")
        if keep < 0:
            raise ValueError(f"keep: must be 0 or more, got {keep}")
        self.bits, self.keep, self.ranges, self.scaling = bits, keep, ranges, scaling
        self.weights_only = weights_only
        self.activations, self.group = (0, group) if weights_only else (activations, 0)

    def shrink(self, network: Network, context: CompressionContext, round: int) -> Network:
        """As `Compression.shrink`: layers round from now on, with ranges from `context.images`.

        Raises:
            StillroomError: SR-M385 no layer can be quantised; SR-M386 `keep` leaves none.
        """
        copy = deepcopy(network).cpu().eval()
        copy.edits = tuple(edit for edit in copy.edits if edit["kind"] != "grid")
        stats = collect_input_stats(copy, context.images)
        if self.weights_only:
            stats = {
                name: item for name, item in stats.items() if isinstance(copy.module.get_submodule(name), nn.Linear)
            }
        if not stats:
            raise NothingToQuantize(what="linear layer" if self.weights_only else "convolution or linear layer")
        if self.keep >= len(stats):
            raise AllLayersKept(keep=self.keep, layers=len(stats))
        floats: list[str] = []
        if self.keep:
            floats = list(sensitivity(copy, self._edit(stats, []), stats, context.images))[: self.keep]
            stats = {name: item for name, item in stats.items() if name not in floats}
        if self.weights_only and self.scaling == "awq":
            _apply_awq(copy, stats, self.bits, self.group)
        apply_rounding(copy, self._edit(stats, floats), stats)
        return copy

    def finalize(self, network: Network) -> Network:
        """As `Compression.finalize`: plain layers with rounded weights; `edits` describes the grid."""
        copy = deepcopy(network).eval()
        bake_rounding(copy.module)
        edit = next(edit for edit in reversed(copy.edits) if edit["kind"] == "rounded")
        grid = {"kind": "grid"} | {key: edit[key] for key in ("bits", "group", "activations", "layers", "float")}
        copy.edits = (*(item for item in copy.edits if item is not edit), grid)
        return copy

    def _edit(self, stats: Mapping[str, InputStats], floats: list[str]) -> dict[str, Any]:
        return {
            "kind": "rounded",
            "bits": self.bits,
            "group": self.group,
            "activations": self.activations,
            "ranges": self.ranges,
            "layers": list(stats),
            "exact": [name for name, item in stats.items() if item.pixels],
            "float": sorted(floats),
        }


def _apply_awq(network: Network, stats: Mapping[str, InputStats], bits: int, group: int) -> None:
    """Scale the linear layers that benefit from it, in place."""
    found: dict[str, Tensor] = {}
    for name, item in stats.items():
        layer = network.module.get_submodule(name)
        if type(layer) is nn.Linear:
            scale, error, plain = best_scale(layer.weight, torch.cat(item.rows), item.mean_abs, bits=bits, group=group)
            found |= {name: scale} if error < plain else {}
    if not found:
        return
    network.apply_edits([{"kind": "scaled", "layers": list(found)}])
    for name, scale in found.items():
        layer = network.module.get_submodule(name)
        with torch.no_grad():
            layer.scale.copy_(scale)  # type: ignore[operator]
            layer.weight.mul_(scale)  # type: ignore[operator]

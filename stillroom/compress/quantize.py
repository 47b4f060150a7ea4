"""Fewer bits: training with rounded weights and activations, and weights that lie on a grid afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from stillroom.compress._awq import best_scale
from stillroom.compress._errors import AllLayersKept, NothingToQuantize
from stillroom.compress._observe import Seen, observe
from stillroom.compress._sensitivity import roundings, sensitivity
from stillroom.compress.compression import View
from stillroom.models.network import Network
from stillroom.models.surgery.rounded import bake_rounding

Ranges = Literal["minmax", "learned"]
Scaling = Literal["awq", "none"]


class Quantize:
    """Weights on a grid of few bits, and training that knows of the rounding. Jacob et al. 2018,
    https://arxiv.org/abs/1712.05877; with a teacher Mishra & Marr 2018, https://arxiv.org/abs/1711.05852.

    While it is trained, every convolution and linear layer computes with rounded weights (one symmetric grid for each
    output channel) and reads rounded values (one grid for all of them); gradients pass as if nothing were rounded.
    What comes of it are plain layers whose float weights lie on the grids: with 8 bits an int8 file holds these
    very integers, and its runtime sets the activations' ranges for itself. Without training it is post-training
    quantisation.

    The first convolution reads its pixels as they are, and outputs are not rounded, as in int8 files. Layers that
    change their weights before they use them, or whose weights others use, stay in floats.

    Use: before an int8 file that answers otherwise than its network, mostly of networks with depthwise convolutions;
    with `weights_only` for files of 4 bits.

    Avoid: for int8 files that agree as they are. Fewer than 8 bits with activations: no runtime here computes with
    those, and an int8 file rounds such weights once more, by up to max|w| / 254.

    Args:
        bits: of weights, 2..8.
        activations: bits of what layers read, 2..8; 0 leaves it in floats.
        weights_only: linear layers alone, with a grid for each `group` of inputs, and activations in floats.
        group: of `weights_only`: 16, 32, 64, 128 or 256; an int4 file shares a scale among as many.
        scaling: of `weights_only`: "awq" protects what matters most, see `_awq`; "none" rounds as it comes.
        ranges: of activations: "minmax" follows the smallest and largest values, "learned" learns the step.
        keep: how many layers, the ones that suffer most from rounding, stay in floats, in every file too.

    Raises:
        ValueError: `weights_only` with other than 4 or 8 bits; no such group.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    rounds = 1
    between: Literal["teacher", "before"] = "teacher"

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

    def shrink(self, network: Network, view: View, round: int) -> Network:
        """As `Compression.shrink`: layers round from here on, with ranges from `view.images`.

        Raises:
            StillroomError: SR-M385 no layer can be rounded; SR-M386 `keep` leaves none.
        """
        copy = deepcopy(network).cpu().eval()
        copy.edits = tuple(edit for edit in copy.edits if edit["kind"] != "grid")
        seen = observe(copy, view.images)
        if self.weights_only:
            seen = {name: one for name, one in seen.items() if isinstance(copy.module.get_submodule(name), nn.Linear)}
        if not seen:
            raise NothingToQuantize(what="linear layer" if self.weights_only else "convolution or linear layer")
        if self.keep >= len(seen):
            raise AllLayersKept(keep=self.keep, layers=len(seen))
        floats: list[str] = []
        if self.keep:
            floats = list(sensitivity(copy, self._edit(seen, []), seen, view.images))[: self.keep]
            seen = {name: one for name, one in seen.items() if name not in floats}
        if self.weights_only and self.scaling == "awq":
            _scale(copy, seen, self.bits, self.group)
        roundings(copy, self._edit(seen, floats), seen)
        return copy

    def settle(self, network: Network) -> Network:
        """As `Compression.settle`: plain layers, whose weights are the rounded ones; `form` says which grid it is."""
        copy = deepcopy(network).eval()
        bake_rounding(copy.module)
        edit = next(edit for edit in reversed(copy.edits) if edit["kind"] == "rounded")
        grid = {"kind": "grid"} | {key: edit[key] for key in ("bits", "group", "activations", "layers", "float")}
        copy.edits = (*(one for one in copy.edits if one is not edit), grid)
        return copy

    def _edit(self, seen: Mapping[str, Seen], floats: list[str]) -> dict[str, Any]:
        return {
            "kind": "rounded",
            "bits": self.bits,
            "group": self.group,
            "activations": self.activations,
            "ranges": self.ranges,
            "layers": list(seen),
            "exact": [name for name, one in seen.items() if one.pixels],
            "float": sorted(floats),
        }


def _scale(network: Network, seen: Mapping[str, Seen], bits: int, group: int) -> None:
    """Scale the linear layers that gain by it, in place."""
    found: dict[str, Tensor] = {}
    for name, one in seen.items():
        layer = network.module.get_submodule(name)
        if type(layer) is nn.Linear:
            scale, error, plain = best_scale(layer.weight, torch.cat(one.rows), one.size, bits=bits, group=group)
            found |= {name: scale} if error < plain else {}
    if not found:
        return
    network.apply_edits([{"kind": "scaled", "layers": list(found)}])
    for name, scale in found.items():
        layer = network.module.get_submodule(name)
        with torch.no_grad():
            layer.scale.copy_(scale)  # type: ignore[operator]
            layer.weight.mul_(scale)  # type: ignore[operator]

"""Which channels of a network can only go together, what each is worth, and taking them out.

Torch-Pruning's dependency graph finds them: a channel of one layer is read by others, added to those of a third, and
so on. Fang et al. 2023, "DepGraph: Towards Any Structural Pruning", https://arxiv.org/abs/2301.12900. What is taken
out, and how much of it, is decided here and not by its pruners: these round to a multiple of eight even where a layer
has eight channels, and scale nothing when a head of attention gets narrower.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Importance = Literal["magnitude", "taylor", "bn"]
Plan = tuple[int, ...]
"""Places that stay of each unit."""


@dataclass(frozen=True, eq=False)
class Unit:
    """Channels of several layers that go together: n places, each of which can stay or go.

    Attributes:
        group: the dependencies, as Torch-Pruning lists them, for all places.
        size: n.
        parts: heads or groups of a convolution, which all lose the same places; 1 where there are none.
        sides: (layer, "in" or "out") -> channels of that side that one place stands for, as a share of all.
    """

    group: Any
    size: int
    parts: int
    sides: dict[tuple[str, str], float]

    def step(self, round_to: int) -> int:
        """What the number of places is a multiple of: `round_to`, halved until a quarter of the places is enough."""
        while round_to > 1 and round_to * 4 > self.size:
            round_to //= 2
        return round_to


class Channels:
    """The units of a module, which `take` makes smaller in place, once.

    Args:
        module: in evaluation mode; its parameters get gradients.
        example: [1, C, H, W] as the module takes it.
        keep: names of the parts whose outputs stay.
    """

    def __init__(self, module: nn.Module, example: Tensor, keep: Sequence[str]):
        import torch_pruning

        self.module, self.names = module, {part: name for name, part in module.named_modules()}
        self.attentions: list[Any] = [part for part in module.modules() if _is_attention(part)]
        self.heads: dict[Any, int] = {part.qkv: part.num_heads for part in self.attentions}
        module.requires_grad_(True)
        with torch.enable_grad(), quiet():
            self.graph = torch_pruning.DependencyGraph().build_dependency(module, example)
            kept = [part for name in keep for part in module.get_submodule(name).modules()]
            groups = list(self.graph.get_all_groups(kept, [nn.modules.conv._ConvNd, nn.Linear]))
        self.units = [unit for group in groups if (unit := self._unit(group)) is not None]

    def scores(self, importance: Importance) -> list[Tensor | None]:
        """[n] for each unit: what each place is worth, of the weights and gradients as they are; None: not known.

        A place's score is the mean over the layers that have a part in it: the squared norm of its weights; for
        "taylor" |Σ w·∂L/∂w|, how much the loss would change without them, in first order (Molchanov et al. 2019,
        https://arxiv.org/abs/1906.10771, who square it); for "bn" |γ| of the norms alone (Liu et al. 2017, "Network
        Slimming", https://arxiv.org/abs/1708.06519). Heads and groups that lose the same places are averaged.
        """
        return [self._score(unit, importance) for unit in self.units]

    def take(self, plan: Plan, scores: Sequence[Tensor], only: Sequence[int]) -> None:
        """Leave `plan[i]` places of the unit `only[i]`, those of the highest `scores[i]`; the first of equals go."""
        widths = {part: part.qkv.out_features // 3 // part.num_heads for part in self.attentions}
        flags = {name: parameter.requires_grad for name, parameter in self.module.named_parameters()}
        with quiet():
            for index, left, score in zip(only, plan, scores, strict=True):
                unit = self.units[index]
                gone = torch.argsort(score, stable=True)[: unit.size - left]
                places = torch.cat([gone + part * unit.size for part in range(unit.parts)]).sort().values.tolist()
                root = unit.group[0].dep
                if places:
                    self.graph.get_pruning_group(root.target.module, root.handler, places).prune()
        for part in self.attentions:
            _narrow(part, widths[part])
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(flags[name])
            parameter.grad = None

    def _unit(self, group: Any) -> Unit | None:
        group = self._rooted(group)
        if group is None or any(_pads_channels(getattr(dep.target, "grad_fn", None)) for dep, _ in group):
            return None
        channels, parts = len(group[0].idxs), max(self._parts(dep) for dep, _ in group)
        if channels % parts or channels // parts < 2 or not all(self._aligned(item, parts) for item in group):
            return None
        size, sides = channels // parts, dict[tuple[str, str], float]()
        for dep, indices in group:
            part = dep.target.module
            if isinstance(part, (nn.modules.conv._ConvNd, nn.Linear)):
                out = self.graph.is_out_channel_pruning_fn(dep.handler)
                total = self.graph.get_out_channels(part) if out else self.graph.get_in_channels(part)
                sides[self.names[part], "out" if out else "in"] = len(indices) / size / total
        return Unit(group, size, parts, sides)

    def _rooted(self, group: Any) -> Any:
        """Of attention, seen from the layer that reads its values: there a place is a place of one head."""
        if not any(dep.target.module in self.heads and self._out(dep) for dep, _ in group):
            return group
        for dep, indices in group:
            readers = isinstance(dep.target.module, (nn.modules.conv._ConvNd, nn.Linear))
            if readers and self.graph.is_in_channel_pruning_fn(dep.handler):
                with quiet():
                    return self.graph.get_pruning_group(dep.target.module, dep.handler, indices)
        return None

    def _out(self, dep: Any) -> bool:
        return self.graph.is_out_channel_pruning_fn(dep.handler)

    def _parts(self, dep: Any) -> int:
        part = dep.target.module
        if isinstance(part, nn.modules.conv._ConvNd):
            return 1 if part.groups == part.out_channels else part.groups
        if isinstance(part, nn.GroupNorm):
            return part.num_groups
        return self.heads.get(part, 1) if self._out(dep) else 1

    def _aligned(self, item: Any, parts: int) -> bool:
        """Whether a layer that works in groups holds all of these channels and no others.

        Else its groups would end up with different numbers, as where it reads two layers side by side.
        """
        own = self._parts(item.dep)
        if own == 1:
            return True
        count = self.graph.get_out_channels if self._out(item.dep) else self.graph.get_in_channels
        return parts % own == 0 and len(item.idxs) % count(item.dep.target.module) == 0

    def _score(self, unit: Unit, importance: Importance) -> Tensor | None:
        total, found = torch.zeros(unit.size * unit.parts, dtype=torch.float64), 0
        for item in unit.group:
            worth = _worth(item.dep.target.module, self._out(item.dep), importance)
            roots = item.root_idxs
            if worth is not None and not any(root is None for root in roots):
                total.index_add_(0, torch.tensor(roots), worth.double()[torch.tensor(item.idxs)])
                found += 1
        return total.view(unit.parts, unit.size).mean(0) / found if found else None


def _worth(part: nn.Module, out: bool, importance: Importance) -> Tensor | None:
    """What each channel of a layer's side is worth; None for a layer that does not count."""
    weight, norm = getattr(part, "weight", None), isinstance(part, nn.modules.batchnorm._BatchNorm)
    counts = norm or (importance != "bn" and isinstance(part, (nn.modules.conv._ConvNd, nn.Linear)))
    if not counts or not isinstance(weight, Tensor):
        return None
    held = _by_channel(part, weight.detach(), out)
    if importance == "bn":
        return held.abs().sum(1)
    if importance == "magnitude":
        return held.square().sum(1)
    slope = torch.zeros_like(weight) if weight.grad is None else weight.grad
    return (held * _by_channel(part, slope, out)).sum(1).abs()


def _by_channel(part: nn.Module, weight: Tensor, out: bool) -> Tensor:
    """[channels of that side, weights of each]."""
    groups, turned = getattr(part, "groups", 1), getattr(part, "transposed", False)
    if weight.ndim == 1:
        return weight[:, None]
    if out != turned:  # a transposed convolution holds its inputs first
        return weight.flatten(1)
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flatten(1)


def _is_attention(part: nn.Module) -> bool:
    return isinstance(getattr(part, "qkv", None), nn.Linear) and type(getattr(part, "num_heads", None)) is int


def _narrow(part: Any, width: int) -> None:
    """Tell attention how wide its heads are now, and have it weigh as before.

    Attention divides q·k by the root of the heads' width. The channels that are left were taught with the old width,
    so the queries are scaled to undo the difference; channels that were zero can then go without any effect.
    """
    values = part.qkv.out_features // 3
    new = values // part.num_heads
    if new == width:
        return
    if isinstance(getattr(part, "scale", None), float) and math.isclose(part.scale, width**-0.5):
        part.scale = new**-0.5
        if isinstance(getattr(part, "q_norm", nn.Identity()), nn.Identity):
            with torch.no_grad():
                part.qkv.weight[:values] *= (new / width) ** 0.5
                if part.qkv.bias is not None:
                    part.qkv.bias[:values] *= (new / width) ** 0.5
    for name, value in (("head_dim", new), ("attn_dim", values)):
        if type(getattr(part, name, None)) is int:
            setattr(part, name, value)


def _pads_channels(operation: Any) -> bool:
    """Whether an operation adds channels: those behind it are then others than those before, and none can go.

    `pad` lists two numbers for each axis, from the last one on; the third from behind is that of the channels.
    """
    return any(getattr(operation, "_saved_pad", ())[4:])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what Torch-Pruning prints and warns of."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

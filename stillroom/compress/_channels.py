"""Channels that can only be removed together, their importance, and their removal.

They are found by Torch-Pruning's dependency graph: a channel of one layer is the input of others, is added to a channel
of a third, and so on. Fang et al. 2023, "DepGraph: Towards Any Structural Pruning", https://arxiv.org/abs/2301.12900.
Torch-Pruning's own pruners are not used: they round to a multiple of eight even in layers of eight channels, and do not
adapt the scale of attention when its heads get narrower.
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
"""Number of channels that each group keeps."""


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """n channels, each of which is removed from several layers at once.

    Attributes:
        group: the dependencies of all channels, as Torch-Pruning lists them.
        size: n.
        blocks: attention heads or groups of a convolution, from all of which the same channels are removed; 1 without.
        shares: (layer, "in" or "out") -> share of that side's channels that is removed with one channel.
    """

    group: Any
    size: int
    blocks: int
    shares: dict[tuple[str, str], float]

    def step(self, round_to: int) -> int:
        """The number that the kept channels are a multiple of: `round_to`, halved until it is at most n / 4."""
        while round_to > 1 and round_to * 4 > self.size:
            round_to //= 2
        return round_to


class Channels:
    """The channel groups of a module. `prune` may be called once, and changes the module in place.

    Args:
        module: in evaluation mode; its parameters get gradients.
        example: [1, C, H, W], an input of the module.
        keep: names of the submodules whose outputs are kept.
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
            found = list(self.graph.get_all_groups(kept, [nn.modules.conv._ConvNd, nn.Linear]))
        self.groups = [group for one in found if (group := self._channel_group(one)) is not None]

    def scores(self, importance: Importance) -> list[Tensor | None]:
        """[n] for each group: the importance of its channels by the current weights and gradients; None: undefined.

        The score of a channel is the mean over the layers that it belongs to. "magnitude": the squared norm of its
        weights. "taylor": |Σ w·∂L/∂w|, the first-order change of the loss without them (Molchanov et al. 2019,
        https://arxiv.org/abs/1906.10771. Differs: they square it). "bn": |γ| of batch norms (Liu et al. 2017, "Network
        Slimming", https://arxiv.org/abs/1708.06519). Scores are averaged over the blocks of a group.
        """
        return [self._score(group, importance) for group in self.groups]

    def prune(self, plan: Plan, scores: Sequence[Tensor], only: Sequence[int]) -> None:
        """Keep the `plan[i]` channels of highest `scores[i]` in the group `only[i]`; the last of equal scores."""
        widths = {part: part.qkv.out_features // 3 // part.num_heads for part in self.attentions}
        flags = {name: parameter.requires_grad for name, parameter in self.module.named_parameters()}
        with quiet():
            for index, kept, score in zip(only, plan, scores, strict=True):
                group = self.groups[index]
                removed = torch.argsort(score, stable=True)[: group.size - kept]
                channels = torch.cat([removed + block * group.size for block in range(group.blocks)]).sort()
                indices = channels.values.tolist()
                root = group.group[0].dep
                if indices:
                    self.graph.get_pruning_group(root.target.module, root.handler, indices).prune()
        for part in self.attentions:
            _update_attention(part, widths[part])
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(flags[name])
            parameter.grad = None

    def _channel_group(self, group: Any) -> ChannelGroup | None:
        group = self._rooted(group)
        if group is None or any(_pads_channels(getattr(dep.target, "grad_fn", None)) for dep, _ in group):
            return None
        channels, blocks = len(group[0].idxs), max(self._blocks(dep) for dep, _ in group)
        if channels % blocks or channels // blocks < 2 or not all(self._aligned(item, blocks) for item in group):
            return None
        size, shares = channels // blocks, dict[tuple[str, str], float]()
        for dep, indices in group:
            part = dep.target.module
            if isinstance(part, (nn.modules.conv._ConvNd, nn.Linear)):
                out = self.graph.is_out_channel_pruning_fn(dep.handler)
                total = self.graph.get_out_channels(part) if out else self.graph.get_in_channels(part)
                shares[self.names[part], "out" if out else "in"] = len(indices) / size / total
        return ChannelGroup(group, size, blocks, shares)

    def _rooted(self, group: Any) -> Any:
        """For attention the group of the layer after it, whose inputs are ordered by head."""
        if not any(dep.target.module in self.heads and self._out(dep) for dep, _ in group):
            return group
        for dep, indices in group:
            layer = isinstance(dep.target.module, (nn.modules.conv._ConvNd, nn.Linear))
            if layer and self.graph.is_in_channel_pruning_fn(dep.handler):
                with quiet():
                    return self.graph.get_pruning_group(dep.target.module, dep.handler, indices)
        return None

    def _out(self, dep: Any) -> bool:
        return self.graph.is_out_channel_pruning_fn(dep.handler)

    def _blocks(self, dep: Any) -> int:
        part = dep.target.module
        if isinstance(part, nn.modules.conv._ConvNd):
            return 1 if part.groups == part.out_channels else part.groups
        if isinstance(part, nn.GroupNorm):
            return part.num_groups
        return self.heads.get(part, 1) if self._out(dep) else 1

    def _aligned(self, item: Any, blocks: int) -> bool:
        """Whether a layer with blocks has all of these channels and no others.

        Otherwise its blocks would get different sizes, for example where its input is a concatenation.
        """
        own = self._blocks(item.dep)
        if own == 1:
            return True
        count = self.graph.get_out_channels if self._out(item.dep) else self.graph.get_in_channels
        return blocks % own == 0 and len(item.idxs) % count(item.dep.target.module) == 0

    def _score(self, group: ChannelGroup, importance: Importance) -> Tensor | None:
        total, layers = torch.zeros(group.size * group.blocks, dtype=torch.float64), 0
        for item in group.group:
            score = _layer_score(item.dep.target.module, self._out(item.dep), importance)
            roots = item.root_idxs
            if score is not None and not any(root is None for root in roots):
                total.index_add_(0, torch.tensor(roots), score.double()[torch.tensor(item.idxs)])
                layers += 1
        return total.view(group.blocks, group.size).mean(0) / layers if layers else None


def _layer_score(part: nn.Module, out: bool, importance: Importance) -> Tensor | None:
    """The score of each channel of a layer's inputs or outputs; None for a layer that is not used."""
    weight, norm = getattr(part, "weight", None), isinstance(part, nn.modules.batchnorm._BatchNorm)
    used = norm or (importance != "bn" and isinstance(part, (nn.modules.conv._ConvNd, nn.Linear)))
    if not used or not isinstance(weight, Tensor):
        return None
    values = _by_channel(part, weight.detach(), out)
    if importance == "bn":
        return values.abs().sum(1)
    if importance == "magnitude":
        return values.square().sum(1)
    gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
    return (values * _by_channel(part, gradient, out)).sum(1).abs()


def _by_channel(part: nn.Module, weight: Tensor, out: bool) -> Tensor:
    """[channels of that side, weights of each]."""
    groups, transposed = getattr(part, "groups", 1), getattr(part, "transposed", False)
    if weight.ndim == 1:
        return weight[:, None]
    if out != transposed:  # the first axis of a transposed convolution's weight is its inputs
        return weight.flatten(1)
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flatten(1)


def _is_attention(part: nn.Module) -> bool:
    return isinstance(getattr(part, "qkv", None), nn.Linear) and type(getattr(part, "num_heads", None)) is int


def _update_attention(part: Any, width: int) -> None:
    """Set the new width of the heads, and rescale the queries so that the attention weights stay the same.

    Attention divides q·k by the square root of the heads' width. The weights were trained with the old width, so the
    queries are scaled by the ratio; removing channels that are zero then has no effect.
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
    """Whether an operation pads the channel axis: then channels before and after it do not correspond.

    `pad` lists two numbers for each axis, starting with the last; the third axis from the end is that of the channels.
    """
    return any(getattr(operation, "_saved_pad", ())[4:])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what Torch-Pruning prints, and its warnings."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

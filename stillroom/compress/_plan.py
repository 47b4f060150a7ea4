"""How many channels each group keeps, so that the network's work reaches a share of the original."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from stillroom.compress._channels import ChannelGroup, Plan

MIN_SHARE = 0.1
"""Share of a group's channels that is always kept: a layer of one or two channels would be a bottleneck."""


class MacsEstimate:
    """Multiply-accumulates (MACs) of a plan, computed without pruning the network.

    The MACs of a layer are its current MACs times the kept share of its outputs, times the kept share of its inputs;
    those of the products inside attention scale with the width of its values. All others stay.

    Args:
        counts: MACs by module name, "" for the whole network.
        groups: of the network.
        attentions: names of the attention modules.
    """

    def __init__(self, counts: Mapping[str, int], groups: Sequence[ChannelGroup], attentions: Sequence[str]):
        self.sizes = [group.size for group in groups]
        self.affected: dict[str, dict[str, list[tuple[int, float]]]] = {}
        for index, group in enumerate(groups):
            for (layer, side), share in group.shares.items():
                self.affected.setdefault(layer, {}).setdefault(side, []).append((index, share))
        self.counts = {layer: counts.get(layer, 0) for layer in self.affected}
        for name in attentions:
            if f"{name}.qkv" in self.affected:
                inside = sum(count for layer, count in counts.items() if layer.startswith(f"{name}."))
                self.affected[name] = {"out": self.affected[f"{name}.qkv"].get("out", [])}
                self.counts[name] = max(0, counts.get(name, 0) - inside)
        self.rest = counts[""] - sum(self.counts.values())

    def __call__(self, plan: Plan) -> float:
        """MACs of the plan."""
        removed = [size - kept for size, kept in zip(self.sizes, plan, strict=True)]
        total = float(self.rest)
        for layer, sides in self.affected.items():
            total += self.counts[layer] * math.prod(
                1 - sum(removed[index] * share for index, share in shares) for shares in sides.values()
            )
        return total


def uniform_plan(groups: Sequence[ChannelGroup], removed: float, round_to: int) -> Plan:
    """Remove the same share `removed`, 0..1, of the channels of each group."""
    return tuple(_rounded(group, group.size * (1 - removed), round_to) for group in groups)


def global_plan(groups: Sequence[ChannelGroup], scores: Sequence[Tensor], removed: float, round_to: int) -> Plan:
    """Remove the share `removed`, 0..1, of all channels, those with the lowest scores first, in any layer.

    Scores are divided by their group's mean, because layers differ in the scale of their weights.
    """
    relative = [score / score.mean().clamp_min(torch.finfo(score.dtype).tiny) for score in scores]
    ordered = torch.cat(relative).sort().values
    count = min(round(removed * len(ordered)), len(ordered))
    limit = ordered[count - 1].item() if count else -math.inf
    kept = [int((score > limit).sum()) for score in relative]
    return tuple(_rounded(group, size, round_to) for group, size in zip(groups, kept, strict=True))


def closest_plan(
    goal: float, work: Callable[[Plan], float], plan: Callable[[float], Plan], steps: Sequence[int]
) -> Plan:
    """A plan whose work is just below `goal`; the smallest one where none is that small.

    The removed share is found by bisection. The groups of the smallest plan above the goal and the largest one below it
    differ by about one step: as many of them as fit take the larger size. The remaining work is given to single steps
    of any group, in order.

    Args:
        goal: the largest work that is allowed.
        work: plan -> its work.
        plan: removed share, 0..1 -> plan.
        steps: by which the groups' sizes grow.
    """
    full = plan(0.0)
    if work(full) <= goal:
        return full
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if work(plan(middle)) > goal else (low, middle)
    best = plan(high)
    for larger in (plan(low), tuple(kept + step for kept, step in zip(best, steps, strict=True))):
        for index in range(len(best)):
            candidate = (*best[:index], min(max(larger[index], best[index]), full[index]), *best[index + 1 :])
            if work(candidate) <= goal:
                best = candidate
    return best


def _rounded(group: ChannelGroup, size: float, round_to: int) -> int:
    """Rounded down to a multiple of the group's step, but at least one step and `MIN_SHARE` of the channels."""
    if size >= group.size:
        return group.size
    step = group.step(round_to)
    least = step * math.ceil(group.size * MIN_SHARE / step)
    return max(least, step * math.floor(size / step + 1e-9))

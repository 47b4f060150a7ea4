"""How many channels of each unit stay, so that a network's work comes to a share of what it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from stillroom.compress._channels import Plan, Unit

LEAST = 0.1
"""Share of a unit's places that always stay: a layer of one or two channels is a plug, whatever its score says."""


class Work:
    """Multiply-accumulates that a plan leaves, foretold without making the network.

    A layer's are its own now, times the share of its outputs that stays, times the share of its inputs; the products
    inside attention go with the width of its values. Whatever else there is stays as it is.

    Args:
        counts: multiply-accumulates by the name of the part, "" for all.
        units: of the network.
        attentions: names of the parts that are attention.
    """

    def __init__(self, counts: Mapping[str, int], units: Sequence[Unit], attentions: Sequence[str]):
        self.sizes = [unit.size for unit in units]
        self.reach: dict[str, dict[str, list[tuple[int, float]]]] = {}
        for index, unit in enumerate(units):
            for (layer, side), share in unit.sides.items():
                self.reach.setdefault(layer, {}).setdefault(side, []).append((index, share))
        self.counts = {layer: counts.get(layer, 0) for layer in self.reach}
        for name in attentions:
            if f"{name}.qkv" in self.reach:
                inside = sum(count for layer, count in counts.items() if layer.startswith(f"{name}."))
                self.reach[name] = {"out": self.reach[f"{name}.qkv"].get("out", [])}
                self.counts[name] = max(0, counts.get(name, 0) - inside)
        self.rest = counts[""] - sum(self.counts.values())

    def __call__(self, plan: Plan) -> float:
        """The count."""
        gone = [size - left for size, left in zip(self.sizes, plan, strict=True)]
        total = float(self.rest)
        for layer, sides in self.reach.items():
            total += self.counts[layer] * math.prod(
                1 - sum(gone[index] * share for index, share in reached) for reached in sides.values()
            )
        return total


def even(units: Sequence[Unit], gone: float, round_to: int) -> Plan:
    """The same share `gone`, 0..1, of the places of each unit."""
    return tuple(_rounded(unit, unit.size * (1 - gone), round_to) for unit in units)


def ranked(units: Sequence[Unit], scores: Sequence[Tensor], gone: float, round_to: int) -> Plan:
    """The share `gone`, 0..1, of all places, the lowest scores first, wherever they are.

    Scores are compared as multiples of their unit's mean, for layers differ in the size of their weights.
    """
    relative = [score / score.mean().clamp_min(torch.finfo(score.dtype).tiny) for score in scores]
    every = torch.cat(relative).sort().values
    count = min(round(gone * len(every)), len(every))
    limit = every[count - 1].item() if count else -math.inf
    kept = [int((score > limit).sum()) for score in relative]
    return tuple(_rounded(unit, left, round_to) for unit, left in zip(units, kept, strict=True))


def nearest(goal: float, work: Callable[[Plan], float], plan: Callable[[float], Plan], steps: Sequence[int]) -> Plan:
    """A plan whose work is just below `goal`; the smallest of all where none is that small.

    The share that goes is found by halving. Between the last plan that is too much and the first that is not, units
    differ by a step or so: as many of them as still fit keep it. What is left of the goal goes to single steps of any
    unit, the first to the last.

    Args:
        goal: what `work` may say at most.
        work: what a plan costs.
        plan: the plan for a share that goes, 0..1.
        steps: by which the units grow.
    """
    whole = plan(0.0)
    if work(whole) <= goal:
        return whole
    little, much = 0.0, 1.0
    for _ in range(40):
        middle = (little + much) / 2
        little, much = (middle, much) if work(plan(middle)) > goal else (little, middle)
    found = plan(much)
    for more in (plan(little), tuple(left + step for left, step in zip(found, steps, strict=True))):
        for index in range(len(found)):
            tried = (*found[:index], min(max(more[index], found[index]), whole[index]), *found[index + 1 :])
            if work(tried) <= goal:
                found = tried
    return found


def _rounded(unit: Unit, left: float, round_to: int) -> int:
    """Down to a multiple of the unit's step, but never to less than one, or less than `LEAST`."""
    if left >= unit.size:
        return unit.size
    step = unit.step(round_to)
    least = step * math.ceil(unit.size * LEAST / step)
    return max(least, step * math.floor(left / step + 1e-9))

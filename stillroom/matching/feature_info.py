"""Where a network may be listened to: the ends of its stages, its blocks, its attention, what its classifier reads.

No architecture is treated by name. One forward pass of a few images shows the output of every part; a stage ends
where the resolution changes, and a network of one resolution, a ViT or a mixer, is cut into four by depth.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from stillroom.models._taps import INPUT_SUFFIX, channels_first, first_tensor, split_tap
from stillroom.models.network import Network

CUTS = 4  # stages of a network that keeps one resolution


@dataclass(frozen=True)
class FeaturePoint:
    """One part of a network.

    Attributes:
        tap: its name.
        shape: of what it says, without the images: (C, h, w), (N, D) or (D,).
        stride: pixels of the network's input from one point of the map to the next; None for tokens and vectors.
        depth: how much of the network lies before it, above 0, at most 1.
    """

    tap: str
    shape: tuple[int, ...]
    stride: float | None = None
    depth: float = 1.0

    def __str__(self) -> str:
        return f"{self.tap} {list(self.shape)}"


@dataclass(frozen=True)
class FeatureInfo:
    """What of a network can be compared with another.

    Attributes:
        places: every part that gives out a map, tokens or a vector, in the order they finish.
        stages: the ends of its stages, shallow to deep.
        edges: as `stages`, before the last activation of each where there is one.
        blocks: the repeated blocks of a network of one resolution; () for others.
        attention: what computes q, k and v in its last block; None where nothing does.
        vector: what its classifier reads, or else its last stage; None where no part says anything.
        members: of several teachers as one each by itself; () of a network.
    """

    places: dict[str, FeaturePoint]
    stages: tuple[FeaturePoint, ...]
    edges: tuple[FeaturePoint, ...]
    blocks: tuple[FeaturePoint, ...]
    attention: FeaturePoint | None
    vector: FeaturePoint | None
    members: tuple[FeatureInfo, ...] = ()

    def member(self, tap: str) -> FeatureInfo:
        """Of whom a tap is: of `2/layer3` the second of the members, where there are any."""
        number, _ = split_tap(tap)
        return next(iter(self.members[number - 1 : number]), self)

    def full(self, tap: str) -> str:
        """A tap's whole name, the number with it where there are members."""
        return "{}/{}".format(*split_tap(tap)) if self.members else tap


@dataclass(frozen=True)
class _Call:
    """One part at work: the last time it ran in the pass."""

    place: FeaturePoint
    entered: Tensor | None
    left: Tensor
    kind: type
    leaf: bool
    alone: bool  # it says one thing, not a list of them as a pyramid does
    features: tuple[int, int] | None  # of a linear layer


@torch.no_grad()
def feature_info(network: Network, images: Tensor) -> FeatureInfo:
    """The layers of a network, from a forward pass of images [B, C, H, W], B at least 2. It is left as it was."""
    training = network.training
    calls: dict[str, _Call] = {}
    side = network.size or images.shape[-1]
    hooks = [
        part.register_forward_hook(_noting(name, part, side, calls))
        for name, part in network.module.named_modules()
        if name and _compared(name, network)
    ]
    try:
        network.to(images.device).eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
        network.train(training)
    blocks = _blocks(calls)
    ends = _stages(calls, blocks)
    stages = tuple(replace(end.place, depth=(i + 1) / len(ends)) for i, end in enumerate(ends))
    return FeatureInfo(
        places={name: call.place for name, call in calls.items()},
        stages=stages,
        edges=tuple(_edge(stage, calls) for stage in stages),
        blocks=tuple(call.place for call in blocks),
        attention=_attention(calls, blocks),
        vector=_vector(network, calls, stages),
    )


def merge(surveys: Sequence[FeatureInfo]) -> FeatureInfo:
    """Several teachers as one: what is found without being named is the first one's."""
    members = tuple(_numbered(number, one) for number, one in enumerate(surveys, 1))
    return replace(members[0], members=members)


def _numbered(number: int, one: FeatureInfo) -> FeatureInfo:
    def named(place: FeaturePoint) -> FeaturePoint:
        return replace(place, tap=f"{number}/{place.tap}")

    return FeatureInfo(
        places={f"{number}/{name}": named(place) for name, place in one.places.items()},
        stages=tuple(map(named, one.stages)),
        edges=tuple(map(named, one.edges)),
        blocks=tuple(map(named, one.blocks)),
        attention=one.attention and named(one.attention),
        vector=one.vector and named(one.vector),
    )


def _compared(name: str, network: Network) -> bool:
    """Whether the part belongs to what is compared: all of a network, or of its trunk."""
    return not network.trunk or any(name == part or name.startswith(f"{part}.") for part in network.trunk)


def _noting(name: str, part: nn.Module, side: int, calls: dict[str, _Call]) -> Any:
    leaf = not any(True for _ in part.children())
    sizes = (part.in_features, part.out_features) if isinstance(part, nn.Linear) else None

    def hook(module: nn.Module, given: Any, output: Any) -> None:
        left = first_tensor(output)
        if left is None or left.ndim not in (2, 3, 4) or not left.is_floating_point():
            return
        entered = first_tensor(given)
        shape = tuple(channels_first(left).shape[1:])
        stride = side / shape[-1] if len(shape) == 3 else None
        calls.pop(name, None)  # a part that runs again finishes again
        alone = isinstance(output, Tensor)
        calls[name] = _Call(FeaturePoint(name, shape, stride), entered, left, type(part), leaf, alone, sizes)

    return hook


def _stages(calls: dict[str, _Call], blocks: list[_Call]) -> list[_Call]:
    """The last part that finishes at each resolution, parts inside a change of resolution left out."""
    maps = [call for name, call in calls.items() if _is_map(call) and not _inside_a_change(name, calls)]
    ends = [list(found)[-1] for _, found in groupby(sorted(maps, key=_stride), key=_stride)]
    if len(ends) > 1 and _layers(calls, until=ends[0]) < 2:
        ends = ends[1:]  # a stem of one convolution is no stage
    if len(ends) <= 1 and blocks:
        return _cut(blocks)
    order = list(calls)
    if blocks and order.index(blocks[-1].place.tap) > order.index(ends[-1].place.tap):
        ends.append(blocks[-1])  # a ViT behind convolutions
    return ends or list(calls.values())[-1:]


def _is_map(call: _Call) -> bool:
    return call.alone and len(call.place.shape) == 3 and call.place.shape[1] == call.place.shape[2] > 1


def _layers(calls: dict[str, _Call], *, until: _Call) -> int:
    """How many convolutions and linear layers have run when `until` is done."""
    names = list(calls)
    before = names[: names.index(until.place.tap) + 1]
    return sum(issubclass(calls[name].kind, (nn.Conv2d, nn.Linear)) for name in before)


def _stride(call: _Call) -> float:
    return call.place.stride or 0.0


def _inside_a_change(name: str, calls: dict[str, _Call]) -> bool:
    """Whether the part belongs to a larger one that halves the resolution, and its own output is not halved yet."""
    parts, own = name.split("."), calls[name].place.stride or 0.0
    for end in range(1, len(parts)):
        outer = calls.get(".".join(parts[:end]))
        if outer is None or not outer.alone or outer.place.stride is None:
            continue
        if outer.entered is None or outer.entered.ndim != 4:
            continue
        ratio = channels_first(outer.entered).shape[-1] / outer.place.shape[-1]
        if outer.place.stride != own and 1 <= ratio <= 2:
            return True
    return False


def _blocks(calls: dict[str, _Call]) -> list[_Call]:
    """The longest row of siblings of one class and one output shape that are made of parts: the blocks of a ViT."""
    rows: dict[tuple[str, type, tuple[int, ...]], list[_Call]] = {}
    for name, call in calls.items():
        if not call.leaf and len(call.place.shape) > 1:
            rows.setdefault((name.rpartition(".")[0], call.kind, call.place.shape), []).append(call)
    same = [row for (_, _, shape), row in rows.items() if len(row) > 1 and _covers(shape, calls)]
    return max(same, key=len, default=[])


def _covers(shape: tuple[int, ...], calls: dict[str, _Call]) -> bool:
    """Tokens; or maps of a network that has no other resolution."""
    return len(shape) == 2 or len({_stride(call) for call in calls.values() if _is_map(call)}) == 1


def _cut(blocks: list[_Call]) -> list[_Call]:
    count = min(CUTS, len(blocks))
    return [blocks[round((i + 1) * len(blocks) / count) - 1] for i in range(count)]


def _edge(stage: FeaturePoint, calls: dict[str, _Call]) -> FeaturePoint:
    """What the stage's last activation reads, if the stage ends with one."""
    end = calls[stage.tap].left
    for name, call in calls.items():
        inside = name == stage.tap or name.startswith(f"{stage.tap}.")
        if inside and call.leaf and _is_activation(call.kind) and call.left.data_ptr() == end.data_ptr():
            return replace(stage, tap=name + INPUT_SUFFIX)
    return stage


def _is_activation(kind: type) -> bool:
    return kind.__module__ == "torch.nn.modules.activation" or bool(
        re.search(r"(?i)relu|swish|gelu|silu", kind.__name__)
    )


def _attention(calls: dict[str, _Call], blocks: list[_Call]) -> FeaturePoint | None:
    if not blocks or len(blocks[-1].place.shape) != 2:
        return None
    inside = f"{blocks[-1].place.tap}."
    found = [
        c for name, c in calls.items() if name.startswith(inside) and c.features and c.features[1] == 3 * c.features[0]
    ]
    return found[0].place if found else None


def _vector(network: Network, calls: dict[str, _Call], stages: tuple[FeaturePoint, ...]) -> FeaturePoint | None:
    for head in network.head:
        if head in calls and (read := calls[head].entered) is not None:
            return FeaturePoint(head + INPUT_SUFFIX, tuple(read.shape[1:]))
    return stages[-1] if stages else None

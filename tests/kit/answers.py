"""What two speakers say of n images, and what is known of these: drawn for any kind of answers, cut by rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kit.targets import drawn_target
from stillroom.metrics.metric import Metric
from stillroom.types import Batch, Output

CLASSES = ("ant", "bee", "cat", "dog")
SIDE = 16
BOXES = 8


def drawn(output_kind: str, n: int, seed: int = 0, *, ties: bool = False) -> tuple[Output, Batch, Output]:
    """An answer, the images with their target, and a reference's answer, somewhat like the first.

    Args:
        answers: one of `types.OutputKind`.
        n: images.
        seed: of everything.
        ties: whether numbers are rounded, so that many are equal.
    """
    draw = torch.Generator().manual_seed(seed)
    target = _target(output_kind, n, seed, draw)
    one, other = (_said(output_kind, target, n, draw) for _ in range(2))
    if ties:
        one, other = one.round(), other.round()
    keys = torch.randperm(10 * n, generator=draw)[:n] * 7
    batch = Batch(images=torch.zeros(n, 1, SIDE, SIDE), target=target, keys=keys)
    return Output(pred=one), batch, Output(pred=other)


def rows(parts: tuple[Output, Batch, Output], chosen: Tensor) -> tuple[Output, Batch, Output]:
    """Those images of all three."""
    said, batch, expected = parts
    return Output(pred=said.pred[chosen]), batch.map(lambda tensor: tensor[chosen]), Output(pred=expected.pred[chosen])


def count(metric: Metric, parts: tuple[Output, Batch, Output], chosen: Tensor, size: int = 1000) -> Metric:
    """The metric, having seen those images in batches of `size`."""
    for part in chosen.split(size) if len(chosen) else []:
        said, batch, expected = rows(parts, part)
        metric.update(said, batch, expected)
    return metric


def _target(output_kind: str, n: int, seed: int, draw: torch.Generator) -> Any:
    if output_kind == "boxes":
        return drawn_target(n, 3, len(CLASSES), seed) | {"size": torch.randint(40, 300, (n, 2), generator=draw)}
    if output_kind == "pixels":
        mask = torch.randint(-1, len(CLASSES), (n, SIDE // 4, SIDE // 4), generator=draw)
        return mask.repeat_interleave(4, 1).repeat_interleave(4, 2)
    return torch.randint(0, len(CLASSES), (n,), generator=draw)


def _said(output_kind: str, target: Any, n: int, draw: torch.Generator) -> Tensor:
    k = len(CLASSES)
    if output_kind == "boxes":
        return _boxes(target, n, draw)
    if output_kind == "pixels":
        known = torch.nn.functional.one_hot(target.clamp_min(0), k).movedim(-1, 1)
        return torch.randn(n, k, SIDE, SIDE, generator=draw) + 2 * known
    return torch.randn(n, k if output_kind == "classes" else 6, generator=draw)


def _boxes(target: dict[str, Tensor], n: int, draw: torch.Generator) -> Tensor:
    """The truth, moved a little, and some boxes that are made up; the worst places hold nothing."""
    found = torch.rand(n, BOXES, 6, generator=draw)
    found[..., 2:4] = found[..., :2] + 0.1 + 0.3 * found[..., 2:4]
    m = target["boxes"].shape[1]
    found[:, :m, :4] = target["boxes"] + 0.02 * torch.randn(n, m, 4, generator=draw)
    found[..., :4] *= SIDE
    found[..., 5] = torch.randint(0, len(CLASSES), (n, BOXES), generator=draw).float()
    found[:, :m, 5] = torch.where(target["labels"] >= 0, target["labels"].float(), found[:, :m, 5])
    found = found.gather(1, found[..., 4].argsort(1, descending=True)[..., None].expand(-1, -1, 6))
    found[:, -2:] = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, -1.0])
    return found

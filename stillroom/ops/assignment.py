"""Which predicted boxes are charged for which labelled boxes, and the detection loss that follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.distributed.collectives import all_reduce_sum
from stillroom.ops.boxes import giou, iou, to_centres
from stillroom.types import Terms

Assign = Literal["many", "one"]


MIN_OVERLAP = 0.1
"""Least overlap that counts in an assignment. A new detector's boxes overlap nothing: without it no place would be
charged for any box, so that none would ever learn."""


ALPHA, BETA, TOPK = 1.0, 6.0, 13
"""TOOD's powers of score and overlap, and how many places a box has at most (section 3.2 there)."""


@dataclass(frozen=True)
class Assignment:
    """Which box each place stands for.

    Attributes:
        box: [B, A] int64, a number in 0..M-1; -1 for background.
        quality: [B, A] in 0..1, the score that the place should have; 0 for background.
    """

    box: Tensor
    quality: Tensor


@torch.no_grad()
def assign_boxes(pred: Tensor, target: Mapping[str, Tensor], how: Assign = "many") -> Assignment:
    """Places for boxes, by what they say now: t = score^1 IoU^6 with score and IoU for the box's class and sides.

    many: each box takes the 13 places of largest t whose own box has its centre in it, and the nearest others where
        these are fewer; equals by the distance of the centres. A place that several take goes to the box it overlaps
        most. Feng et al. 2021 (TOOD), https://arxiv.org/abs/2108.07755, section 3.2.
    one: each box takes one place, so that the sum of 2 focal + 5 L1 - 2 GIoU is least. Zhao et al. 2023 (RT-DETR),
        https://arxiv.org/abs/2304.08069, after Carion et al. 2020, https://arxiv.org/abs/2005.12872, section 3.1.

    A place's quality is t / max t * max IoU, maxima over the places of its box: the best place's is its IoU.

    Differs: the authors ask that an anchor's centre lies in the box; here it is the centre of what the place predicts,
    for this sees predictions only. An overlap counts as 0.1 at least, see `FLOOR`.

    Args:
        pred: [B, A, 4 + K], see `types.OutputKind`.
        target: see `types.TargetKind`. Crowds, and images of which nothing is known, get no place.
        how: one of the two above.
    """
    places, count = pred.shape[1], target["labels"].shape[1]
    if not count or not places:
        nothing = pred.new_zeros(pred.shape[:2], dtype=torch.float32)
        return Assignment(nothing.long() - 1, nothing)
    boxes, labels = target["boxes"].float(), target["labels"]
    said, logits = pred.float().split((4, pred.shape[-1] - 4), -1)
    real = (labels >= 0) & ~target["crowd"] & target["known"][:, None]
    of_class = logits.transpose(1, 2).gather(1, labels.clamp(min=0)[..., None].expand(-1, -1, places))  # [B, M, A]
    overlap = iou(boxes[:, :, None], said[:, None]).clamp(min=MIN_OVERLAP)
    fit = ALPHA * F.logsigmoid(of_class) + BETA * overlap.log()
    mine = _many(boxes, said, overlap, fit, real) if how == "many" else _one(boxes, said, of_class, real)
    best = fit.masked_fill(~mine, -torch.inf).amax(-1, keepdim=True).nan_to_num(neginf=0.0)
    peak = (overlap * mine).amax(-1, keepdim=True)
    quality = ((fit - best).exp() * peak).masked_fill(~mine, 0).sum(1)
    return Assignment(torch.where(mine.any(1), mine.int().argmax(1), -1), quality)


def _many(boxes: Tensor, said: Tensor, overlap: Tensor, fit: Tensor, real: Tensor) -> Tensor:
    """[B, M, A]: places for boxes, none for two of them."""
    centre = to_centres(said)[:, None, :, :2]
    inside = ((centre > boxes[:, :, None, :2]) & (centre < boxes[:, :, None, 2:])).all(-1)
    apart = (centre - to_centres(boxes)[:, :, None, :2]).norm(dim=-1)
    # A thousandth of t, or of an overlap, decides nothing but ties.
    wish = torch.where(inside, fit - 1e-3 * apart, -1e4 * (1 + apart))
    first = wish.topk(min(TOPK, wish.shape[-1]), -1).indices
    mine = torch.zeros_like(inside).scatter(-1, first, True) & real[..., None]
    owner = (overlap - 1e-3 * apart).masked_fill(~mine, -torch.inf).argmax(1, keepdim=True)
    return mine & torch.zeros_like(mine).scatter(1, owner, True)


def _one(boxes: Tensor, said: Tensor, logits: Tensor, real: Tensor) -> Tensor:
    """[B, M, A]: one place for each box, none for two of them."""
    from scipy.optimize import linear_sum_assignment

    p = logits.sigmoid()
    focal = 0.25 * (1 - p).square() * -F.logsigmoid(logits) - 0.75 * p.square() * -F.logsigmoid(-logits)
    apart = (boxes[:, :, None] - said[:, None]).abs().sum(-1)
    cost = (2 * focal + 5 * apart - 2 * giou(boxes[:, :, None], said[:, None])).nan_to_num(1e6, 1e6, -1e6).cpu()
    mine = torch.zeros_like(cost, dtype=torch.bool)
    for row, kept in enumerate(real.cpu()):
        rows = kept.nonzero().flatten()
        box, place = linear_sum_assignment(cost[row, rows].numpy())
        mine[row, rows[torch.as_tensor(box)], torch.as_tensor(place)] = True
    return mine.to(logits.device)


def detection_loss(pred: Tensor, target: Mapping[str, Tensor], *, assign: Assign = "many") -> Terms:
    """What boxes charge a detector: a score that says how well its place fits, and sides that are the box's.

        score = sum |q - p|^2 BCE(p, q) / n     box = 2 sum q (1 - GIoU) / n     n = max(1, sum q)

    p the sigmoid of each class's logit; q the place's quality (`assignment`, no gradient) at the class of its box and 0
    elsewhere. With `one` also `corners` = 5 sum q |sides - the box's| / n, sides summed. Sums are over all places of
    all processes' images, so that the mean of their gradients is that of one process with the whole batch.
    Feng et al. 2021 (TOOD), https://arxiv.org/abs/2108.07755, section 3.2, with its code's weights, 1 and 2; 5 is
    DETR's. The authors of DETR and RT-DETR weigh the sides of all places alike, here it is by q.

    All at least 0. `score` is 0 where every score is its quality, the others where sides agree; without any box there
    is only the background's `score`. Where a place's centre lies in a crowd, that class is not charged as background;
    an image of which nobody knows the boxes charges nothing.

    Args:
        pred: [B, A, 4 + K], see `types.OutputKind`; read as float32.
        target: see `types.TargetKind`.
        assign: many places to a box, for detectors whose answers are suppressed; or one, for those that are not.
    """
    found = assign_boxes(pred, target, assign)
    said, logits = pred.float().split((4, pred.shape[-1] - 4), -1)
    taken = found.box >= 0
    at = found.box.clamp(min=0)
    wanted, charged = torch.zeros_like(logits), target["known"][:, None, None] & ~_crowded(said, logits, target)
    score = box = corners = logits.sum() * 0.0 + said.sum() * 0.0
    if target["labels"].shape[1]:
        classes = target["labels"].gather(1, at).clamp(min=0)
        wanted = wanted.scatter(-1, classes[..., None], found.quality[..., None])
        sides = target["boxes"].float().gather(1, at[..., None].expand(-1, -1, 4))
        box = 2 * (found.quality * (1 - giou(said, sides)).where(taken, 0)).sum()
        corners = 5 * (found.quality * (said - sides).abs().sum(-1).where(taken, 0)).sum()
    gap = (wanted - logits.sigmoid()).square()
    score = (
        (gap * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none"))
        .where(charged | (wanted > 0), 0)
        .sum()
    )
    score, box, corners, weight = all_reduce_sum(torch.stack((score, box, corners, found.quality.sum()))).unbind()
    n = weight.detach().clamp(min=1)  # images without a box: the background is charged as it is
    return {"score": score / n, "box": box / n} | ({"corners": corners / n} if assign == "one" else {})


def _crowded(said: Tensor, logits: Tensor, target: Mapping[str, Tensor]) -> Tensor:
    """[B, A, K]: whether a place's box has its centre in a crowd of that class."""
    crowd = target["crowd"] & (target["labels"] >= 0)
    boxes, centre = target["boxes"].float(), to_centres(said.detach())[:, None, :, :2]
    inside = ((centre > boxes[:, :, None, :2]) & (centre < boxes[:, :, None, 2:])).all(-1) & crowd[..., None]
    named = F.one_hot(target["labels"].clamp(min=0), logits.shape[-1]).bool()
    return (inside[..., None] & named[:, :, None]).any(1)

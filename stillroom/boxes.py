"""Boxes: how far they overlap, which of many are one object, and what labels charge a detector for its own.

A box is left, top, right, bottom, in shares of the image's width and height unless said otherwise. Overlaps are the
same in shares and in pixels. Letters besides those of `types`: A places, M boxes that are known, N candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.processes import total
from stillroom.types import Terms

Assign = Literal["many", "one"]

EPSILON = 1e-9
"""Of an area in shares: below it a box is a line. Keeps 0 / 0 out of overlaps of degenerate boxes."""

FLOOR = 0.1
"""Least overlap that counts in an assignment. A new detector's boxes overlap nothing: without it no place would be
charged for any box, so that none would ever learn."""

ALPHA, BETA, PLACES = 1.0, 6.0, 13
"""TOOD's powers of score and overlap, and how many places a box has at most (section 3.2 there)."""

ROUNDS = 16
"""Of `suppress`: how long a chain of boxes, each in the way of the next, is resolved exactly. 300 boxes scattered about
one object have chains of up to 12."""


def to_corners(boxes: Tensor) -> Tensor:
    """[..., 4] centre x, centre y, width, height -> left, top, right, bottom."""
    x, y, w, h = boxes.unbind(-1)
    return torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), -1)


def to_centres(boxes: Tensor) -> Tensor:
    """[..., 4] left, top, right, bottom -> centre x, centre y, width, height."""
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack(((left + right) / 2, (top + bottom) / 2, right - left, bottom - top), -1)


def in_pixels(boxes: Tensor, height: int, width: int) -> Tensor:
    """[..., 4] in shares -> in pixels of an image of that size; exports with the size left open."""
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack((left * width, top * height, right * width, bottom * height), -1)


def clip(boxes: Tensor) -> Tensor:
    """[..., 4] in shares, cut off at the image's border."""
    return boxes.clamp(0, 1)


def area(boxes: Tensor) -> Tensor:
    """[..., 4] -> [...]; 0 for a box whose right is left of its left, or whose bottom is above its top."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Area of the common part / area of both together, of boxes in pairs: [..., 4], [..., 4] -> [...].

    The leading axes broadcast: `iou(a[..., :, None, :], b[..., None, :, :])` is each of A with each of M, [..., A, M].

    Returns:
        0..1; 1 for equal boxes, 0 where nothing is common and for a box without area.
    """
    return _overlap(boxes, others)[0]


def giou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU - (C - U) / C: U the area of both together, C of the smallest box around both, in pairs as `iou`.

    Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630, algorithm 1. Boxes apart from each other still pull.

    Returns:
        -1..1; 1 for equal boxes, towards -1 the farther apart they are. A box without area counts as its point or
        line, and every gradient is finite; of a point inside the other box it is 0.
    """
    found, union = _overlap(boxes, others)
    low, high = torch.minimum(boxes, others), torch.maximum(boxes, others)
    around = area(torch.cat((low[..., :2], high[..., 2:]), -1)).clamp(min=EPSILON)
    return found - (around - union) / around


def _overlap(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    # Side by side, not as [..., 4]: of all pairs of 300 boxes that is less than half the time.
    ours, theirs = boxes.unbind(-1), others.unbind(-1)
    width = torch.minimum(ours[2], theirs[2]) - torch.maximum(ours[0], theirs[0])
    height = torch.minimum(ours[3], theirs[3]) - torch.maximum(ours[1], theirs[1])
    common = width.clamp(min=0) * height.clamp(min=0)
    union = area(boxes) + area(others) - common
    return common / union.clamp(min=EPSILON), union


def suppress(boxes: Tensor, classes: Tensor, limit: float, rounds: int = ROUNDS) -> Tensor:
    """Which boxes to keep: those that overlap no kept box of their class that stands before them by more than `limit`.

    Non-maximum suppression in operations of fixed shape, so that it exports: Cluster-NMS, Zheng et al. 2020,
    https://arxiv.org/abs/2005.03572, section 4, with the same number of rounds for every image. The first `rounds`
    boxes of a chain, each in the way of the next, come out as by the greedy loop; what hangs on a longer one may not.

    Args:
        boxes: [B, N, 4], by falling score.
        classes: [B, N], of any type; boxes of two classes leave each other alone.
        limit: greatest overlap of two kept boxes, 0..1.
        rounds: at least 1.

    Returns:
        [B, N] bool.
    """
    n = boxes.shape[1]
    before = torch.ones(n, n, dtype=torch.bool, device=boxes.device).tril(-1)
    near = iou(boxes[:, :, None], boxes[:, None]) > limit
    blocks = (near & (classes[:, :, None] == classes[:, None]) & before).to(boxes.dtype)  # [b, i, j]: j blocks i
    kept = torch.ones_like(blocks[:, :, 0])
    for _ in range(rounds):  # products and maxima, not a matrix product: exporters would round that to integers
        kept = 1 - (blocks * kept[:, None]).amax(-1)
    return kept > 0.5


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
def assignment(pred: Tensor, target: Mapping[str, Tensor], how: Assign = "many") -> Assignment:
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
        pred: [B, A, 4 + K], see `types.Answers`.
        target: see `types.Kind`. Crowds, and images of which nothing is known, get no place.
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
    overlap = iou(boxes[:, :, None], said[:, None]).clamp(min=FLOOR)
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
    first = wish.topk(min(PLACES, wish.shape[-1]), -1).indices
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
        pred: [B, A, 4 + K], see `types.Answers`; read as float32.
        target: see `types.Kind`.
        assign: many places to a box, for detectors whose answers are suppressed; or one, for those that are not.
    """
    found = assignment(pred, target, assign)
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
    score, box, corners, weight = total(torch.stack((score, box, corners, found.quality.sum()))).unbind()
    n = weight.detach().clamp(min=1)  # images without a box: the background is charged as it is
    return {"score": score / n, "box": box / n} | ({"corners": corners / n} if assign == "one" else {})


def _crowded(said: Tensor, logits: Tensor, target: Mapping[str, Tensor]) -> Tensor:
    """[B, A, K]: whether a place's box has its centre in a crowd of that class."""
    crowd = target["crowd"] & (target["labels"] >= 0)
    boxes, centre = target["boxes"].float(), to_centres(said.detach())[:, None, :, :2]
    inside = ((centre > boxes[:, :, None, :2]) & (centre < boxes[:, :, None, 2:])).all(-1) & crowd[..., None]
    named = F.one_hot(target["labels"].clamp(min=0), logits.shape[-1]).bool()
    return (inside[..., None] & named[:, :, None]).any(1)

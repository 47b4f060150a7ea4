"""Assignment of labelled boxes to predictions, for training a detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.ops.boxes import giou, iou, to_centres

Assign = Literal["many", "one"]

MIN_OVERLAP = 0.1
"""Smallest IoU used in an assignment. The boxes of an untrained detector overlap no labelled box: without the bound no
prediction would be assigned, and none would ever be trained."""

ALPHA, BETA, TOPK = 1.0, 6.0, 13
"""TOOD's exponents of score and IoU, and the largest number of predictions per box (section 3.2 there)."""


@dataclass(frozen=True)
class Assignment:
    """The labelled box of each prediction.

    Attributes:
        box: [B, A] int64, index of the box in 0..M-1; -1 for background.
        quality: [B, A] in 0..1, the target score of the prediction; 0 for background.
    """

    box: Tensor
    quality: Tensor


@torch.no_grad()
def assign_boxes(pred: Tensor, target: Mapping[str, Tensor], how: Assign = "many") -> Assignment:
    """Assign boxes to predictions by the alignment t = score^1 IoU^6, with the score of the box's class.

    many: each box is assigned the 13 predictions of largest t among those with their centre inside the box, filled up
        with the nearest others if these are fewer; ties by the distance of the centres. A prediction that several boxes
        claim goes to the one with the largest IoU. Feng et al. 2021 (TOOD), https://arxiv.org/abs/2108.07755,
        section 3.2.
    one: each box is assigned one prediction, such that the sum of 2 focal + 5 L1 - 2 GIoU is minimal. Zhao et al. 2023
        (RT-DETR), https://arxiv.org/abs/2304.08069, after Carion et al. 2020, https://arxiv.org/abs/2005.12872,
        section 3.1.

    The quality of a prediction is t / max t * max IoU, with the maxima over the predictions of its box, so that the
    best prediction's quality is its IoU.

    Differs: the authors require the anchor's centre to lie in the box; here it is the centre of the predicted box,
    because anchors are not known here. IoU has a lower bound of 0.1, see `MIN_OVERLAP`.

    Args:
        pred: [B, A, 4 + K], see `types.OutputKind`.
        target: see `types.TargetKind`. Crowd boxes and unannotated images are not assigned.
        how: "many" or "one", see above.
    """
    predictions, count = pred.shape[1], target["labels"].shape[1]
    if not count or not predictions:
        nothing = pred.new_zeros(pred.shape[:2], dtype=torch.float32)
        return Assignment(nothing.long() - 1, nothing)
    boxes, labels = target["boxes"].float(), target["labels"]
    predicted, logits = pred.float().split((4, pred.shape[-1] - 4), -1)
    valid = (labels >= 0) & ~target["crowd"] & target["known"][:, None]
    of_class = logits.transpose(1, 2).gather(1, labels.clamp(min=0)[..., None].expand(-1, -1, predictions))  # [B, M, A]
    overlap = iou(boxes[:, :, None], predicted[:, None]).clamp(min=MIN_OVERLAP)
    log_t = ALPHA * F.logsigmoid(of_class) + BETA * overlap.log()
    if how == "many":
        assigned = _assign_many(boxes, predicted, overlap, log_t, valid)
    else:
        assigned = _assign_one(boxes, predicted, of_class, valid)
    best = log_t.masked_fill(~assigned, -torch.inf).amax(-1, keepdim=True).nan_to_num(neginf=0.0)
    max_overlap = (overlap * assigned).amax(-1, keepdim=True)
    quality = ((log_t - best).exp() * max_overlap).masked_fill(~assigned, 0).sum(1)
    return Assignment(torch.where(assigned.any(1), assigned.int().argmax(1), -1), quality)


def _assign_many(boxes: Tensor, predicted: Tensor, overlap: Tensor, log_t: Tensor, valid: Tensor) -> Tensor:
    """[B, M, A] bool; each prediction is assigned to at most one box."""
    centre = to_centres(predicted)[:, None, :, :2]
    inside = ((centre > boxes[:, :, None, :2]) & (centre < boxes[:, :, None, 2:])).all(-1)
    distance = (centre - to_centres(boxes)[:, :, None, :2]).norm(dim=-1)
    # The weight of 1e-3 is small enough that the distance only breaks ties of t and of the IoU.
    preference = torch.where(inside, log_t - 1e-3 * distance, -1e4 * (1 + distance))
    first = preference.topk(min(TOPK, preference.shape[-1]), -1).indices
    claimed = torch.zeros_like(inside).scatter(-1, first, True) & valid[..., None]
    owner = (overlap - 1e-3 * distance).masked_fill(~claimed, -torch.inf).argmax(1, keepdim=True)
    return claimed & torch.zeros_like(claimed).scatter(1, owner, True)


def _assign_one(boxes: Tensor, predicted: Tensor, logits: Tensor, valid: Tensor) -> Tensor:
    """[B, M, A] bool; one prediction per box, and at most one box per prediction."""
    from scipy.optimize import linear_sum_assignment

    p = logits.sigmoid()
    focal = 0.25 * (1 - p).square() * -F.logsigmoid(logits) - 0.75 * p.square() * -F.logsigmoid(-logits)
    l1 = (boxes[:, :, None] - predicted[:, None]).abs().sum(-1)
    cost = (2 * focal + 5 * l1 - 2 * giou(boxes[:, :, None], predicted[:, None])).nan_to_num(1e6, 1e6, -1e6).cpu()
    assigned = torch.zeros_like(cost, dtype=torch.bool)
    for image, valid_boxes in enumerate(valid.cpu()):
        rows = valid_boxes.nonzero().flatten()
        box, prediction = linear_sum_assignment(cost[image, rows].numpy())
        assigned[image, rows[torch.as_tensor(box)], torch.as_tensor(prediction)] = True
    return assigned.to(logits.device)

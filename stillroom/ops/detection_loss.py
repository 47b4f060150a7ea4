"""The detection loss that follows from an assignment of boxes to predictions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.distributed.collectives import all_reduce_sum
from stillroom.ops.assignment import Assign, assign_boxes
from stillroom.ops.boxes import giou, to_centres
from stillroom.types import Terms


def detection_loss(pred: Tensor, target: Mapping[str, Tensor], *, assign: Assign = "many") -> Terms:
    """Classification and box regression losses; the target of a score is the quality of its prediction.

        score = sum |q - p|^2 BCE(p, q) / n     box = 2 sum q (1 - GIoU) / n     n = max(1, sum q)

    p is the sigmoid of each class logit; q is the prediction's quality (`assign_boxes`, no gradient) at the class of
    its box and 0 elsewhere. With assign = "one" also `corners` = 5 sum q |predicted - labelled sides| / n, summed over
    the four sides. Sums are over all predictions of all processes' images, so that the mean of the processes' gradients
    is the gradient of one process with the whole batch. Feng et al. 2021 (TOOD), https://arxiv.org/abs/2108.07755,
    section 3.2, with the weights of its code, 1 and 2; 5 is DETR's. Differs: DETR and RT-DETR weight the sides of all
    predictions equally, here the weight is q.

    All losses are at least 0. `score` is 0 if every score equals its quality, the others if all sides agree; without
    any box only the background's `score` remains. A prediction with its centre in a crowd box has no background loss
    for that class. Unannotated images contribute nothing.

    Args:
        pred: [B, A, 4 + K], see `types.OutputKind`; computed in float32.
        target: see `types.TargetKind`.
        assign: "many" predictions per box, for detectors with non-maximum suppression; "one" for detectors without.
    """
    assignment = assign_boxes(pred, target, assign)
    predicted, logits = pred.float().split((4, pred.shape[-1] - 4), -1)
    positive, index = assignment.box >= 0, assignment.box.clamp(min=0)
    wanted = torch.zeros_like(logits)
    counted = target["known"][:, None, None] & ~_in_crowd(predicted, logits, target)
    score = box = corners = logits.sum() * 0.0 + predicted.sum() * 0.0
    if target["labels"].shape[1]:
        classes = target["labels"].gather(1, index).clamp(min=0)
        wanted = wanted.scatter(-1, classes[..., None], assignment.quality[..., None])
        sides = target["boxes"].float().gather(1, index[..., None].expand(-1, -1, 4))
        box = 2 * (assignment.quality * (1 - giou(predicted, sides)).where(positive, 0)).sum()
        corners = 5 * (assignment.quality * (predicted - sides).abs().sum(-1).where(positive, 0)).sum()
    gap = (wanted - logits.sigmoid()).square()
    score = (
        (gap * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none"))
        .where(counted | (wanted > 0), 0)
        .sum()
    )
    score, box, corners, weight = all_reduce_sum(torch.stack((score, box, corners, assignment.quality.sum()))).unbind()
    n = weight.detach().clamp(min=1)  # without any box the background loss is a plain sum
    return {"score": score / n, "box": box / n} | ({"corners": corners / n} if assign == "one" else {})


def _in_crowd(predicted: Tensor, logits: Tensor, target: Mapping[str, Tensor]) -> Tensor:
    """[B, A, K]: whether a predicted box has its centre in a crowd box of that class."""
    crowd = target["crowd"] & (target["labels"] >= 0)
    boxes, centre = target["boxes"].float(), to_centres(predicted.detach())[:, None, :, :2]
    inside = ((centre > boxes[:, :, None, :2]) & (centre < boxes[:, :, None, 2:])).all(-1) & crowd[..., None]
    of_class = F.one_hot(target["labels"].clamp(min=0), logits.shape[-1]).bool()
    return (inside[..., None] & of_class[:, :, None]).any(1)

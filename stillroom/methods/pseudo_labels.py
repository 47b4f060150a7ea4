"""Use the teacher's best boxes as labels. After Sohn et al. 2020, https://arxiv.org/abs/2005.04757, section 3.2."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from stillroom.methods._checks import one_of
from stillroom.methods.method import Method
from stillroom.ops.assignment import Assign
from stillroom.ops.boxes import clip
from stillroom.ops.detection_loss import detection_loss
from stillroom.ops.nms import nms
from stillroom.types import Batch, Output, Terms, at_least_float32

Of = Literal["unlabelled", "all"]


@torch.no_grad()
def confident_boxes(
    teacher: Tensor, *, score_threshold: float, nms_iou: float, max_detections: int
) -> dict[str, Tensor]:
    """The teacher's confident boxes, in the form of a batch's target, without `size` and `known`.

    A box location gives at most one box, of its class with the largest score, if that is at least `score_threshold`.
    NMS is applied per class. Boxes are clipped to the image; boxes without area are dropped.

    Args:
        teacher: [B, A, 4 + K], see `types.OutputKind`.
        score_threshold: least score.
        nms_iou: greatest IoU of two boxes of one class.
        max_detections: most boxes per image.

    Returns:
        `boxes` [B, M, 4], `labels` [B, M] with -1 for unused rows, `crowd` [B, M], all False.
    """
    pred = at_least_float32(teacher)
    score, label = pred[..., 4:].sigmoid().max(2)
    score, index = score.topk(min(max_detections, score.shape[1]), dim=1)
    label = label.gather(1, index)
    boxes = clip(pred[..., :4].gather(1, index[..., None].expand(-1, -1, 4)))
    real = (score >= score_threshold) & (boxes[..., 2:] > boxes[..., :2]).all(2) & boxes.isfinite().all(2)
    # Dropped boxes get a class of their own, so that they suppress no other box.
    selected = real & nms(boxes, label.masked_fill(~real, -1), nms_iou)
    boxes = torch.where(selected[..., None], boxes, 0.0)
    return {"boxes": boxes, "labels": label.masked_fill(~selected, -1), "crowd": torch.zeros_like(selected)}


def pseudo_labels_loss(
    student: Tensor,
    teacher: Tensor,
    used: Tensor,
    *,
    score_threshold: float,
    nms_iou: float,
    max_detections: int,
    assign: Assign = "many",
) -> Terms:
    """`detection_loss` of the student, with the teacher's boxes as labels.

    Args:
        student: [B, A, 4 + K].
        teacher: [B, A', 4 + K], of the same classes, at any box locations.
        used: [B] bool, the images that have a loss.
        score_threshold: see `confident_boxes`.
        nms_iou: see `confident_boxes`.
        max_detections: see `confident_boxes`.
        assign: see `ops.detection_loss`.

    Returns:
        The terms of `detection_loss`, each at least 0; all 0 where no image is used.
    """
    found = confident_boxes(teacher, score_threshold=score_threshold, nms_iou=nms_iou, max_detections=max_detections)
    return detection_loss(student, found | {"known": used}, assign=assign)


class PseudoLabels(Method):
    """The teacher's detections as the labels of images without labels.

    Differs: the authors apply strong augmentation to the student's image and weak augmentation to the teacher's; here
    both see the same pixels. Their labels are computed once, by a detector trained on the labelled images, here in each
    step by the teacher.

    Use: with additional images without labels (`unlabelled` of the source), and between detectors with different box
    locations, for which `box_logits` can't be used: then with on = "all".

    Avoid: teachers that are confidently wrong: the threshold is the only filter. With on = "unlabelled" and data that
    is all labelled, the loss is 0.

    Args:
        score_threshold: least score of a label, 0..1. The authors use 0.9, for softmax; sigmoid scores are lower.
        nms_iou: greatest IoU of two labels of one class, 0..1.
        max_detections: most labels per image.
        on: "unlabelled" for images that were not annotated with boxes, "all" for every image.
        assign: which box locations are matched to a label, as in the task: "many", or "one" for detectors of queries.

    Raises:
        ValueError: an argument is out of its range.
    """

    weight = 1.0
    output_kinds = ("boxes",)

    def __init__(
        self,
        *,
        score_threshold: float = 0.5,
        nms_iou: float = 0.6,
        max_detections: int = 100,
        on: Of = "unlabelled",
        assign: Assign = "many",
    ):
        super().__init__()
        for name, value in (("score_threshold", score_threshold), ("nms_iou", nms_iou)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in 0 to 1, got {value}")
        if max_detections < 1:
            raise ValueError(f"max_detections must be at least 1, got {max_detections}")
        one_of(Of, on=on)
        one_of(Assign, assign=assign)
        self.score_threshold, self.nms_iou, self.max_detections = score_threshold, nms_iou, max_detections
        self.on, self.assign = on, assign

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """The terms of the label loss, see `pseudo_labels_loss`."""
        known = batch.target["known"]
        used = torch.ones_like(known) if self.on == "all" else ~known
        return pseudo_labels_loss(
            student.pred,
            teacher.pred,
            used,
            score_threshold=self.score_threshold,
            nms_iou=self.nms_iou,
            max_detections=self.max_detections,
            assign=self.assign,
        )

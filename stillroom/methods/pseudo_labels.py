"""The teacher's sure boxes as labels. After Sohn et al. 2020 (STAC), https://arxiv.org/abs/2005.04757, section 3.2."""

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
def sure_boxes(teacher: Tensor, *, score_threshold: float, nms_iou: float, max_detections: int) -> dict[str, Tensor]:
    """The boxes that a detector is sure of, as a batch's target has them, without `size` and `known`.

    A place gives one box, of the class it scores highest, if that score is at least `score_threshold`. Of boxes of one
    class that overlap the surest stays. Boxes end at the image's border; one without area is none.

    Args:
        teacher: [B, A, 4 + K], see `types.OutputKind`.
        score_threshold: least score.
        nms_iou: greatest overlap of two boxes of one class.
        max_detections: boxes an image, at most.

    Returns:
        `boxes` [B, M, 4], `labels` [B, M] with -1 where there is none, `crowd` [B, M], all False.
    """
    said = at_least_float32(teacher)
    score, label = said[..., 4:].sigmoid().max(2)
    score, at = score.topk(min(max_detections, score.shape[1]), dim=1)
    label = label.gather(1, at)
    boxes = clip(said[..., :4].gather(1, at[..., None].expand(-1, -1, 4)))
    real = (score >= score_threshold) & (boxes[..., 2:] > boxes[..., :2]).all(2) & boxes.isfinite().all(2)
    # What is no box must not be in the way of one: a class of its own.
    kept = real & nms(boxes, label.masked_fill(~real, -1), nms_iou)
    boxes = torch.where(kept[..., None], boxes, 0.0)
    return {"boxes": boxes, "labels": label.masked_fill(~kept, -1), "crowd": torch.zeros_like(kept)}


def pseudo_labels_loss(
    student: Tensor,
    teacher: Tensor,
    charged: Tensor,
    *,
    score_threshold: float,
    nms_iou: float,
    max_detections: int,
    assign: Assign = "many",
) -> Terms:
    """`boxes.detection_loss` of the student with the teacher's boxes for labels.

    Args:
        student: [B, A, 4 + K].
        teacher: [B, A', 4 + K], of the same classes, at any places.
        charged: [B] bool, the images that count.
        score_threshold: see `sure_boxes`.
        nms_iou: as well.
        max_detections: as well.
        assign: see `boxes.detection_loss`.

    Returns:
        Its terms, each at least 0; all 0 where no image is charged.
    """
    found = sure_boxes(teacher, score_threshold=score_threshold, nms_iou=nms_iou, max_detections=max_detections)
    return detection_loss(student, found | {"known": charged}, assign=assign)


class PseudoLabels(Method):
    """What the teacher finds becomes the label of images that have none.

    Differs: the authors augment an image strongly for the student and weakly for the teacher; here both see the same
    pixels. Their labels are made once by a detector trained on the labelled part, here at each step by the teacher.

    Use: with further images that nobody has labelled (`unlabelled` of the source), and between detectors that have no
    places in common, where `box_logits` can't be used: then with on = "all".

    Avoid: teachers that are sure of wrong boxes: a threshold is all that stands between. With on = "unlabelled" and
    data that is all labelled nothing is charged.

    Args:
        score_threshold: least score of a label, 0..1. The authors have 0.9, for softmax; sigmoid's scores are lower.
        nms_iou: greatest overlap of two labels of one class, 0..1.
        max_detections: labels an image, at most.
        on: "unlabelled" for images where nobody has looked for boxes, "all" for every image.
        assign: which places stand for a box, as in the task: "many", or "one" for detectors of queries.

    Raises:
        ValueError: an argument is out of its range.
    """

    weight = 1.0
    output_kind = ("boxes",)

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
        """The label loss's terms, see `pseudo_labels_loss`."""
        known = batch.target["known"]
        charged = torch.ones_like(known) if self.on == "all" else ~known
        return pseudo_labels_loss(
            student.pred,
            teacher.pred,
            charged,
            score_threshold=self.score_threshold,
            nms_iou=self.nms_iou,
            max_detections=self.max_detections,
            assign=self.assign,
        )

"""Boxes around objects, a class each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from stillroom.metrics.average_precision import AveragePrecision
from stillroom.metrics.box_agreement import BoxAgreement, compared
from stillroom.metrics.metric import Metric
from stillroom.ops.assignment import Assign
from stillroom.ops.boxes import clip, in_pixels
from stillroom.ops.detection_loss import detection_loss
from stillroom.ops.nms import nms
from stillroom.tasks.task import TaskInfo
from stillroom.types import Batch, Output, OutputKind, TargetKind, Terms

SEEN = 0.1
"""Least score that counts when single images are compared; what a detector says below it is hardly an answer."""

GATES = {32: 0.99, 8: 0.93}
"""Float files agreed to 0.9999 and more, int8 files to 0.972 to 0.990, and lost 0.000 to 0.008 of mAP: a MobileNetV3 at
192 px on 60 test images of blood cells, with FCOS and SSDLite heads, calibrated by minmax and by percentile."""


def best_boxes(
    pred: Tensor,
    height: int,
    width: int,
    *,
    nms_iou: float,
    max_detections: int,
    score_threshold: float,
    pre_nms_topk: int,
) -> Tensor:
    """The places worth hearing, each with its surest classes, and of what overlaps only the surest.

    The `pre_nms_topk` largest scores of all places and classes go through `nms`, class by class; of what is left the
    first `max_detections` are given. Only operations of fixed shape, so that it exports with height and width left
    open.

    Args:
        pred: [B, A, 4 + K], see `types.OutputKind`.
        height: of the images, in pixels.
        width: likewise.
        nms_iou: greatest overlap of two boxes of one class.
        max_detections: boxes to give.
        score_threshold: scores below it are none.
        pre_nms_topk: scores to look at.

    Returns:
        [B, min(max_detections, A), 6] float32: left, top, right, bottom in pixels, score in 0..1, class; by falling
        score. Rows that are not needed have score 0, class -1 and a box of zeros. A score that is not finite is none.
    """
    places, classes = pred.shape[1], pred.shape[2] - 4
    sides, logits = pred.float().split((4, classes), -1)
    looked_at = min(max(pre_nms_topk, max_detections), places * classes)
    scores, at = logits.sigmoid().nan_to_num(0.0).flatten(1).topk(looked_at)
    named = at % classes
    boxes = clip(sides.gather(1, (at // classes)[..., None].expand(-1, -1, 4)))
    scores = torch.where(nms(boxes, named, nms_iou) & (scores >= score_threshold), scores, torch.zeros_like(scores))
    scores, first = scores.topk(min(max_detections, places))
    there = scores > 0
    boxes = in_pixels(boxes.gather(1, first[..., None].expand(-1, -1, 4)), height, width)
    named = torch.where(there, named.gather(1, first), torch.full_like(first, -1)).to(scores.dtype)
    rows = torch.cat((boxes * there[..., None].to(boxes.dtype), scores[..., None], named[..., None]), -1)
    return rows


class Detection:
    """Scores and sides of boxes [B, A, 4 + K] with known boxes, see `boxes.detection_loss`.

    Args:
        assign: "many": several places learn each box, and the answer keeps the surest of those that overlap: for
            convolutional detectors. "one": one place each, for queries of a transformer.
        nms_iou: 0 to 1; greatest overlap of two boxes of one class in an answer. 1 suppresses none.
        max_detections: at least 1; boxes in an answer.
        score_threshold: 0 to 1; smallest score in an answer.
        pre_nms_topk: at least 1; scores that are looked at before boxes are suppressed. Time grows with its
            square.
    """

    output_kind: ClassVar[OutputKind] = "boxes"
    needs: ClassVar[TargetKind] = "boxes"
    finetune: ClassVar[Literal["none", "head", "all"]] = "all"  # weights of a classifier leave neck and head new
    gates: ClassVar[Mapping[int, float]] = GATES
    tolerance: ClassVar[float] = 0.02
    taught: ClassVar[bool] = True
    mixes: ClassVar[bool] = False
    gallery: ClassVar[tuple[str, ...]] = ()
    any_size: ClassVar[bool] = True
    about: ClassVar[TaskInfo] = TaskInfo(
        headline="map",
        title="mAP",
        by_class="ap",
        by_class_title="AP by class",
        by_class_note="COCO's average precision of a class, over ten thresholds of IoU.",
        noun="object detector",
        tag="object-detection",
        use="Finding objects of {classes} classes, with a box around each",
        caution="A score is no probability; choose the threshold on images of your own.",
    )

    def __init__(
        self,
        *,
        assign: Assign = "many",
        nms_iou: float = 0.6,
        max_detections: int = 100,
        score_threshold: float = 0.01,
        pre_nms_topk: int = 300,
    ):
        if assign not in get_args(Assign):
            raise ValueError(f"assign must be one of {', '.join(get_args(Assign))}, got {assign}")
        for name, share in (("nms_iou", nms_iou), ("score_threshold", score_threshold)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be 0 to 1, got {share}")
        for name, count in (("max_detections", max_detections), ("pre_nms_topk", pre_nms_topk)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        self.assign, self.nms_iou, self.max_detections = assign, nms_iou, max_detections
        self.score_threshold, self.pre_nms_topk = score_threshold, pre_nms_topk

    def outputs(self, classes: int) -> int:
        """One score a class."""
        return classes

    def loss(self, output: Output, batch: Batch) -> Terms:
        """`{"score": ..., "box": ...}`, of one place a box also `corners`."""
        return detection_loss(output.pred, batch.target, assign=self.assign)

    def answer(self, output: Output, images: Tensor) -> Output:
        """[B, M, 6] in pixels of the images, see `best_boxes`."""
        bounds = {
            "nms_iou": self.nms_iou,
            "max_detections": self.max_detections,
            "score_threshold": self.score_threshold,
            "pre_nms_topk": self.pre_nms_topk,
        }
        return Output(pred=best_boxes(output.pred, images.shape[-2], images.shape[-1], **bounds))  # type: ignore[arg-type]

    def decode(self, answer: Output) -> Tensor:
        """The answer itself, [B, M, 6]."""
        return answer.pred

    def score(self, answer: Output, batch: Batch) -> Tensor:
        """How alike the answer is to the truth, where every box has score 1; see `box_agreement.compared`.

        Rows of score below 0.1 are left out, so that an empty image answered by a whisper is right. 1 for an image of
        which nobody knows the boxes; crowds are no boxes here.
        """
        target = {name: value.to(answer.pred.device) for name, value in batch.target.items()}
        real = (target["labels"] >= 0) & ~target["crowd"]
        boxes = in_pixels(target["boxes"].float(), batch.images.shape[-2], batch.images.shape[-1])
        truth = torch.cat((boxes, real[..., None], torch.where(real, target["labels"], -1)[..., None]), -1)
        found = compared(_seen(answer.pred), truth).agreement
        return found.masked_fill(~target["known"].to(found.device), 1).float().to(answer.pred.device)

    def same(self, answer: Output, other: Output) -> Tensor:
        """How alike both are, rows of score below 0.1 left out; see `box_agreement.compared`."""
        return compared(_seen(answer.pred), _seen(other.pred)).agreement.float().to(answer.pred.device)

    def metrics(self, classes: tuple[str, ...], gallery: Collection[int] = ()) -> list[Metric]:
        """COCO's average precision, over all and by class."""
        return [AveragePrecision(classes=classes)]

    def agreement(self, classes: tuple[str, ...], gallery: Collection[int] = ()) -> Metric:
        """How alike the boxes are that both find."""
        return BoxAgreement(classes=classes)

    def chance(self, classes: int) -> float:
        """0: nobody finds a box by guessing."""
        return 0.0

    def sketch(self, answer: Output, row: int) -> Mapping[str, Any]:
        """The boxes, in pixels of the images, as an answer has them."""
        rows = answer.pred[row][answer.pred[row, :, 5] >= 0]
        return {"boxes": torch.cat((rows[:, :4], rows[:, 5:], rows[:, 4:5]), -1).tolist()}

    def truth(self, batch: Batch, row: int) -> Mapping[str, Any]:
        """The boxes, in shares of the image, each of score 1; crowds too."""
        boxes, labels = batch.target["boxes"][row].double().cpu(), batch.target["labels"][row].cpu()
        named = labels[:, None].double()
        rows = torch.cat((boxes, named, torch.ones_like(named)), -1)
        return {"boxes": rows[labels >= 0].tolist()}


def _seen(rows: Tensor) -> Tensor:
    """The answer with its faint rows made none."""
    faint = rows[..., 4:5] < SEEN
    return torch.where(faint, rows.new_tensor([0.0, 0, 0, 0, 0, -1]), rows)

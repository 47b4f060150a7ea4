"""Object detection: boxes, each with a class."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from stillroom.metrics.average_precision import AveragePrecision
from stillroom.metrics.box_agreement import BoxAgreement, compare_boxes
from stillroom.metrics.metric import Metric
from stillroom.ops.assignment import Assign
from stillroom.ops.boxes import clip, in_pixels
from stillroom.ops.detection_loss import detection_loss
from stillroom.ops.nms import nms
from stillroom.tasks.task import TaskInfo
from stillroom.types import Batch, Output, OutputKind, TargetKind, Terms

MIN_SCORE = 0.1
"""Boxes with a lower score are ignored when single images are compared."""

MIN_AGREEMENT = {32: 0.99, 8: 0.93}
"""Measured: 0.9999 and more for float files, 0.972 to 0.990 for int8 files, which lost 0.000 to 0.008 of mAP. With a
MobileNetV3 at 192 px, FCOS and SSDLite heads, minmax and percentile calibration, on 60 test images of blood cells."""


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
    """Raw predictions of a detector -> its boxes: top scores, then NMS per class.

    NMS runs on the `pre_nms_topk` largest scores of all box locations and classes; the `max_detections` largest of
    those left are returned. All operations have fixed shapes, so that height and width can stay dynamic in an exported
    file.

    Args:
        pred: [B, A, 4 + K], see `types.OutputKind`.
        height: of the images, in pixels.
        width: of the images, in pixels.
        nms_iou: greatest IoU of two boxes of one class.
        max_detections: boxes to return.
        score_threshold: smallest score to return.
        pre_nms_topk: scores that enter NMS.

    Returns:
        [B, min(max_detections, A), 6] float32: left, top, right, bottom in pixels, score in 0..1, class; in descending
        order of score. Unused rows have score 0, class -1 and a box of zeros. A score that is not finite counts as 0.
    """
    locations, classes = pred.shape[1], pred.shape[2] - 4
    sides, logits = pred.float().split((4, classes), -1)
    candidates = min(max(pre_nms_topk, max_detections), locations * classes)
    scores, index = logits.sigmoid().nan_to_num(0.0).flatten(1).topk(candidates)
    labels = index % classes
    boxes = clip(sides.gather(1, (index // classes)[..., None].expand(-1, -1, 4)))
    scores = torch.where(nms(boxes, labels, nms_iou) & (scores >= score_threshold), scores, torch.zeros_like(scores))
    scores, first = scores.topk(min(max_detections, locations))
    used = scores > 0
    boxes = in_pixels(boxes.gather(1, first[..., None].expand(-1, -1, 4)), height, width)
    labels = torch.where(used, labels.gather(1, first), torch.full_like(first, -1)).to(scores.dtype)
    return torch.cat((boxes * used[..., None].to(boxes.dtype), scores[..., None], labels[..., None]), -1)


class Detection:
    """Scores and boxes [B, A, 4 + K] at A box locations, trained on labelled boxes, see `assignment.detection_loss`.

    Args:
        assign: "many": several box locations are matched to each labelled box, for convolutional detectors, which need
            NMS. "one": one location each, for the queries of a transformer.
        nms_iou: 0 to 1; greatest IoU of two predicted boxes of one class. 1 suppresses none.
        max_detections: at least 1; boxes per image.
        score_threshold: 0 to 1; smallest score of a predicted box.
        pre_nms_topk: at least 1; scores that enter NMS. Time grows with its square.

    Raises:
        ValueError: an argument is out of its range.
    """

    output_kind: ClassVar[OutputKind] = "boxes"
    target_kind: ClassVar[TargetKind] = "boxes"
    finetune: ClassVar[Literal["none", "head", "all"]] = (
        "all"  # with the weights of a classifier neck and head are untrained
    )
    min_agreement: ClassVar[Mapping[int, float]] = MIN_AGREEMENT
    tolerance: ClassVar[float] = 0.02
    has_label_loss: ClassVar[bool] = True
    supports_mixing: ClassVar[bool] = False
    gallery_splits: ClassVar[tuple[str, ...]] = ()
    any_size: ClassVar[bool] = True
    info: ClassVar[TaskInfo] = TaskInfo(
        headline="map",
        title="mAP",
        by_class="ap",
        by_class_title="AP by class",
        by_class_note="COCO's average precision of a class, mean over ten IoU thresholds.",
        noun="object detector",
        tag="object-detection",
        use="Detecting objects of {classes} classes, with a box around each",
        caution="A score is not a probability; choose the threshold on your own images.",
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
        self.assign, self.nms_iou, self.max_detections, self.score_threshold, self.pre_nms_topk = (
            assign,
            nms_iou,
            max_detections,
            score_threshold,
            pre_nms_topk,
        )

    def num_outputs(self, classes: int) -> int:
        """One logit per class; the four sides of a box are not counted."""
        return classes

    def loss(self, output: Output, batch: Batch) -> Terms:
        """`{"score": ..., "box": ...}`, with `assign` "one" also `corners`."""
        return detection_loss(output.pred, batch.target, assign=self.assign)

    def postprocess(self, output: Output, images: Tensor) -> Output:
        """[B, M, 6] in pixels of the images, see `best_boxes`."""
        bounds = {
            "nms_iou": self.nms_iou,
            "max_detections": self.max_detections,
            "score_threshold": self.score_threshold,
            "pre_nms_topk": self.pre_nms_topk,
        }
        return Output(pred=best_boxes(output.pred, images.shape[-2], images.shape[-1], **bounds))  # type: ignore[arg-type]

    def decode(self, prediction: Output) -> Tensor:
        """The boxes, [B, M, 6]."""
        return prediction.pred

    def score_per_image(self, prediction: Output, batch: Batch) -> Tensor:
        """Agreement with the labelled boxes, each of score 1; see `box_agreement.compare_boxes`. Crowds are left out.

        Boxes with a score below 0.1 are left out, so that such boxes on an empty image count as correct. 1 for an image
        whose boxes are unknown.
        """
        target = {name: value.to(prediction.pred.device) for name, value in batch.target.items()}
        real = (target["labels"] >= 0) & ~target["crowd"]
        boxes = in_pixels(target["boxes"].float(), batch.images.shape[-2], batch.images.shape[-1])
        truth = torch.cat((boxes, real[..., None], torch.where(real, target["labels"], -1)[..., None]), -1)
        agreement = compare_boxes(_confident(prediction.pred), truth).agreement
        return agreement.masked_fill(~target["known"].to(agreement.device), 1).float().to(prediction.pred.device)

    def agreement_per_image(self, prediction: Output, other: Output) -> Tensor:
        """Agreement of the boxes with a score of at least 0.1; see `box_agreement.compare_boxes`."""
        return (
            compare_boxes(_confident(prediction.pred), _confident(other.pred))
            .agreement.float()
            .to(prediction.pred.device)
        )

    def metrics(self, classes: tuple[str, ...], gallery_keys: Collection[int] = ()) -> list[Metric]:
        """COCO's average precision, overall and by class."""
        return [AveragePrecision(classes=classes)]

    def agreement_metric(self, classes: tuple[str, ...], gallery_keys: Collection[int] = ()) -> Metric:
        """Agreement of the two sets of boxes."""
        return BoxAgreement(classes=classes)

    def chance_level(self, classes: int) -> float:
        """0: a random box matches no object."""
        return 0.0

    def drawable(self, prediction: Output, row: int) -> Mapping[str, Any]:
        """The boxes, in pixels of the images."""
        rows = prediction.pred[row][prediction.pred[row, :, 5] >= 0]
        return {"boxes": torch.cat((rows[:, :4], rows[:, 5:], rows[:, 4:5]), -1).tolist()}

    def drawable_target(self, batch: Batch, row: int) -> Mapping[str, Any]:
        """The labelled boxes, crowds too, as fractions of the image's width and height, each with score 1."""
        boxes, labels = batch.target["boxes"][row].double().cpu(), batch.target["labels"][row].cpu()
        classes = labels[:, None].double()
        rows = torch.cat((boxes, classes, torch.ones_like(classes)), -1)
        return {"boxes": rows[labels >= 0].tolist()}


def _confident(rows: Tensor) -> Tensor:
    """Boxes [B, M, 6] with those below `MIN_SCORE` replaced by empty rows."""
    low = rows[..., 4:5] < MIN_SCORE
    return torch.where(low, rows.new_tensor([0.0, 0, 0, 0, 0, -1]), rows)

"""One class per pixel."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from stillroom.distributed.collectives import all_reduce_sum
from stillroom.metrics.boundary import Boundary
from stillroom.metrics.metric import Metric, predicted_class
from stillroom.metrics.overlap import Overlap, miou_per_image
from stillroom.metrics.pixel_agreement import PixelAgreement, equal_pixel_share
from stillroom.tasks.task import TaskInfo
from stillroom.types import Batch, Output, OutputKind, TargetKind, Terms

VOID = 255
"""Value of pixels without a class in masks that are drawn or stored."""


def pixel_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, mean over the labelled pixels of all processes.

        ce = -sum_p log softmax(pred_p)[y_p] / P,  over the P pixels p that have a class y_p

    Args:
        pred: logits [B, K, H, W].
        target: [B, H, W] int64; -1 is void.

    Returns:
        Scalar in nats, at least 0; 0 when the class of every labelled pixel has probability 1. Where every pixel is
        void, it is 0 with a gradient of zeros.
    """
    total = F.cross_entropy(pred.float(), target, ignore_index=-1, reduction="sum")
    return total / _pixels_per_process(all_reduce_sum((target >= 0).sum()))


def dice_loss(pred: Tensor, target: Tensor) -> Tensor:
    """1 - mean_k 2 sum(p_k y_k) / sum(p_k + y_k), over the classes k in the batch; sums over labelled pixels.

    p is the softmax, y is one-hot. Source: Milletari et al. 2016, https://arxiv.org/abs/1606.04797, eq. 1.

    Args:
        pred: logits [B, K, H, W].
        target: [B, H, W] int64; -1 is void.

    Returns:
        Scalar in 0..1; 0 when the class of every labelled pixel has probability 1, and where every pixel is void.
        Differs: the paper squares p and y in the denominator, and has one class.
    """
    labelled = (target >= 0)[:, None]
    p = torch.where(labelled, pred.float().softmax(1), 0.0)
    y = F.one_hot(target.clamp_min(0), pred.shape[1]).movedim(-1, 1) * labelled
    sums = torch.stack([x.sum((0, 2, 3)) for x in (p * y, p, y.float())])
    intersection, predicted, true = all_reduce_sum(sums)  # equal to the sums of one process
    present = true > 0
    dice = 2 * intersection / (predicted + true).clamp_min(torch.finfo(torch.float32).tiny)
    return ((1 - dice) * present).sum() / present.sum().clamp_min(1)


class Segmentation:
    """Cross-entropy of logits [B, K, H, W] with masks [B, H, W], see `pixel_loss`; with `dice` also `dice_loss`.

    Args:
        dice: at least 0; weight of the dice loss, in which small and large classes count alike.

    Raises:
        ValueError: `dice` is below 0.
    """

    output_kind: ClassVar[OutputKind] = "pixels"
    target_kind: ClassVar[TargetKind] = "masks"
    finetune: ClassVar[Literal["none", "head", "all"]] = (
        "all"  # with the weights of a classifier the decoder is untrained
    )
    min_agreement: ClassVar[Mapping[int, float]] = {32: 0.99, 8: 0.9}
    tolerance: ClassVar[float] = 0.01
    has_label_loss: ClassVar[bool] = True
    supports_mixing: ClassVar[bool] = False
    gallery_splits: ClassVar[tuple[str, ...]] = ()
    any_size: ClassVar[bool] = True
    info: ClassVar[TaskInfo] = TaskInfo(
        headline="miou",
        title="mIoU",
        by_class="iou",
        by_class_title="IoU by class",
        by_class_note="Intersection over union of a class's predicted and true pixels.",
        noun="image segmenter",
        tag="image-segmentation",
        use="Assigning one of {classes} classes to every pixel of an image",
        caution="It assigns one of its classes to every pixel, also to one that shows none of them.",
    )

    def __init__(self, *, dice: float = 0.0):
        if not dice >= 0:
            raise ValueError(f"dice must be at least 0, got {dice}")
        self.dice = dice

    def num_outputs(self, classes: int) -> int:
        """One logit per class."""
        return classes

    def loss(self, output: Output, batch: Batch) -> Terms:
        """`{"ce": ...}`, and with `dice` above 0 also `{"dice": ...}`, multiplied by it."""
        terms = {"ce": pixel_loss(output.pred, batch.target)}
        return terms | ({"dice": self.dice * dice_loss(output.pred, batch.target)} if self.dice else {})

    def postprocess(self, output: Output, images: Tensor) -> Output:
        """The logits, unchanged: the network has already resized them to the images."""
        return output

    def decode(self, prediction: Output) -> Tensor:
        """The class of the largest logit, [B, H, W] uint8; 255 where a logit is not finite.

        With more than 255 classes int16, and -1.
        """
        return _compact(predicted_class(prediction.pred), prediction.pred.shape[1])

    def score_per_image(self, prediction: Output, batch: Batch) -> Tensor:
        """Mean IoU of each image, over the classes that are predicted or true in it; 1 where every pixel is void."""
        predicted = predicted_class(prediction.pred)
        return miou_per_image(predicted, batch.target, prediction.pred.shape[1]).to(predicted.device)

    def agreement_per_image(self, prediction: Output, other: Output) -> Tensor:
        """Share of an image's pixels for which both predict the same class."""
        return equal_pixel_share(predicted_class(prediction.pred), predicted_class(other.pred))

    def metrics(self, classes: tuple[str, ...], gallery_keys: Collection[int] = ()) -> list[Metric]:
        """Overlap of regions, and boundary F."""
        return [Overlap(classes=classes), Boundary(classes=classes)]

    def agreement_metric(self, classes: tuple[str, ...], gallery_keys: Collection[int] = ()) -> Metric:
        """Share of all pixels for which both predict the same class."""
        return PixelAgreement(classes=classes)

    def chance_level(self, classes: int) -> float:
        """1 / (2 K - 1): mIoU of uniform random guesses where all classes are equally frequent."""
        return 1 / (2 * classes - 1)

    def drawable(self, prediction: Output, row: int) -> Mapping[str, Any]:
        """The class of every pixel."""
        return {
            "mask": predicted_class(prediction.pred[row : row + 1])[0].remainder(VOID + 1).to(torch.uint8).cpu().numpy()
        }

    def drawable_target(self, batch: Batch, row: int) -> Mapping[str, Any]:
        """The mask."""
        return {"mask": batch.target[row].remainder(VOID + 1).to(torch.uint8).cpu().numpy()}


def _compact(predicted: Tensor, classes: int) -> Tensor:
    if classes > VOID:
        return predicted.to(torch.int16)
    return predicted.remainder(VOID + 1).to(torch.uint8)


def _pixels_per_process(count: Tensor) -> Tensor:
    """The divisor of each process's sum, so that the mean over processes is the mean over pixels.

    `count` is clamped to 1, which avoids 0 / 0 where every pixel is void.
    """
    return count.clamp_min(1) / (dist.get_world_size() if dist.is_initialized() else 1)

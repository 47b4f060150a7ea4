"""One class a pixel."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from stillroom.distributed.collectives import all_reduce_sum
from stillroom.metrics.boundary import Boundary
from stillroom.metrics.metric import Metric, decide
from stillroom.metrics.overlap import Overlap, image_overlap
from stillroom.metrics.pixel_agreement import PixelAgreement, same_share
from stillroom.tasks.task import TaskInfo
from stillroom.types import Batch, Output, OutputKind, TargetKind, Terms

VOID = 255
"""What a mask that is drawn or kept has where there is no class."""


def pixel_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, mean over the known pixels of all processes.

        ce = -sum over pixels p with a class y_p of log softmax(pred_p)[y_p] / their number

    Args:
        pred: logits [B, K, H, W].
        target: [B, H, W] int64; -1 is void.

    Returns:
        Scalar in nats, at least 0; 0 when every known pixel's class has probability 1, and, with a gradient of zeros,
        where every pixel is void.
    """
    charged = F.cross_entropy(pred.float(), target, ignore_index=-1, reduction="sum")
    return charged / _share(all_reduce_sum((target >= 0).sum()))


def dice_loss(pred: Tensor, target: Tensor) -> Tensor:
    """1 - mean over the classes k that the batch has of 2 sum(p_k y_k) / sum(p_k + y_k), over known pixels.

    p is the softmax, y one-hot. Source: Milletari et al. 2016, https://arxiv.org/abs/1606.04797, eq. 1.

    Args:
        pred: logits [B, K, H, W].
        target: [B, H, W] int64; -1 is void.

    Returns:
        Scalar in 0..1; 0 when every known pixel's class has probability 1, and where every pixel is void. The paper has
        squares in the denominator and one class.
    """
    known = (target >= 0)[:, None]
    p = torch.where(known, pred.float().softmax(1), 0.0)
    y = F.one_hot(target.clamp_min(0), pred.shape[1]).movedim(-1, 1) * known
    parts = torch.stack([x.sum((0, 2, 3)) for x in (p * y, p, y.float())])
    both, said, true = all_reduce_sum(parts)  # what one process would sum
    there = true > 0
    each = 2 * both / (said + true).clamp_min(torch.finfo(torch.float32).tiny)
    return ((1 - each) * there).sum() / there.sum().clamp_min(1)


class Segmentation:
    """Cross-entropy of logits [B, K, H, W] with masks [B, H, W], see `pixel_loss`; with `dice` also `dice_loss`.

    Args:
        dice: at least 0; weight of the overlap's own loss, which charges a small class as much as a large one.
    """

    output_kind: ClassVar[OutputKind] = "pixels"
    needs: ClassVar[TargetKind] = "masks"
    finetune: ClassVar[Literal["none", "head", "all"]] = "all"  # weights of a classifier leave the whole decoder new
    gates: ClassVar[Mapping[int, float]] = {32: 0.99, 8: 0.9}
    tolerance: ClassVar[float] = 0.01
    taught: ClassVar[bool] = True
    mixes: ClassVar[bool] = False
    gallery: ClassVar[tuple[str, ...]] = ()
    any_size: ClassVar[bool] = True
    about: ClassVar[TaskInfo] = TaskInfo(
        headline="miou",
        title="mIoU",
        by_class="iou",
        by_class_title="IoU by class",
        by_class_note="Pixels of a class that are found and right, of all that are said or true.",
        noun="image segmenter",
        tag="image-segmentation",
        use="Giving every pixel of an image one of {classes} classes",
        caution="It gives every pixel one of its classes, also one that shows none of them.",
    )

    def __init__(self, *, dice: float = 0.0):
        if not dice >= 0:
            raise ValueError(f"dice must be at least 0, got {dice}")
        self.dice = dice

    def outputs(self, classes: int) -> int:
        """One logit a class."""
        return classes

    def loss(self, output: Output, batch: Batch) -> Terms:
        """`{"ce": ...}`, and `dice` times the dice loss where that is above 0."""
        terms = {"ce": pixel_loss(output.pred, batch.target)}
        return terms | ({"dice": self.dice * dice_loss(output.pred, batch.target)} if self.dice else {})

    def answer(self, output: Output, images: Tensor) -> Output:
        """The logits as they are: the network has brought them to the images' size."""
        return output

    def decode(self, answer: Output) -> Tensor:
        """The class of the largest logit, [B, H, W]; 255 where a logit is not finite. uint8, of many classes int16."""
        return _kept(decide(answer.pred), answer.pred.shape[1])

    def score(self, answer: Output, batch: Batch) -> Tensor:
        """The mean IoU of each image by itself, over the classes that are said or true in it; 1 where all is void."""
        said = decide(answer.pred)
        return image_overlap(said, batch.target, answer.pred.shape[1]).to(said.device)

    def same(self, answer: Output, other: Output) -> Tensor:
        """The share of pixels to which both give the same class."""
        return same_share(decide(answer.pred), decide(other.pred))

    def metrics(self, classes: tuple[str, ...], gallery: Collection[int] = ()) -> list[Metric]:
        """Overlap of regions, and of their boundaries."""
        return [Overlap(classes=classes), Boundary(classes=classes)]

    def agreement(self, classes: tuple[str, ...], gallery: Collection[int] = ()) -> Metric:
        """Share of pixels to which both give the same class."""
        return PixelAgreement(classes=classes)

    def chance(self, classes: int) -> float:
        """1 / (2 K - 1): a guesser's IoU where all classes are equally frequent."""
        return 1 / (2 * classes - 1)

    def sketch(self, answer: Output, row: int) -> Mapping[str, Any]:
        """The class of every pixel."""
        return {"mask": decide(answer.pred[row : row + 1])[0].remainder(VOID + 1).to(torch.uint8).cpu().numpy()}

    def truth(self, batch: Batch, row: int) -> Mapping[str, Any]:
        """The mask."""
        return {"mask": batch.target[row].remainder(VOID + 1).to(torch.uint8).cpu().numpy()}


def _kept(said: Tensor, classes: int) -> Tensor:
    if classes > VOID:
        return said.to(torch.int16)
    return said.remainder(VOID + 1).to(torch.uint8)


def _share(count: Tensor) -> Tensor:
    """What each process divides by, so that the mean over processes is the mean over pixels; at least 1 in all."""
    return count.clamp_min(1) / (dist.get_world_size() if dist.is_initialized() else 1)

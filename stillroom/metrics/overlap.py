"""Overlap of regions: how much of a class's pixels, said or true, both agree on."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from stillroom.metrics._ratios import BOOTSTRAP, ratios
from stillroom.metrics.measurement import Measurement
from stillroom.metrics.metric import Metric, decide
from stillroom.types import Batch, Output, OutputKind, TargetKind


def tally(said: Tensor, true: Tensor, classes: int) -> Tensor:
    """Pixels of each image and class: those that both have, that are said, and that are true. Void ones do not count.

    Args:
        said: [B, H, W] int64 in -1..K-1; -1 is no class and never right.
        true: [B, H, W] int64 in -1..K-1; -1 is void.
        classes: K.

    Returns:
        [B, K, 3] int64, on the CPU.
    """
    said, true = said.cpu(), true.cpu()
    images, known = len(true), true >= 0
    # One confusion matrix [K, K + 1] an image, the last column for no class; one bincount fills them all.
    start = torch.arange(images).view(-1, 1, 1) * classes
    place = (start + true) * (classes + 1) + torch.where(said < 0, classes, said)
    size = images * classes * (classes + 1)
    confusion = place[known].bincount(minlength=size).view(images, classes, classes + 1)
    columns = confusion.sum(1)[:, :classes]
    return torch.stack((confusion.diagonal(dim1=1, dim2=2), columns, confusion.sum(2)), 2)


def image_overlap(said: Tensor, true: Tensor, classes: int) -> Tensor:
    """The mean IoU of every image by itself, over the classes that are said or true in it; 1 where all is void.

    Args:
        said: as for `tally`.
        true: as for `tally`.
        classes: K.

    Returns:
        [B] float32 in 0..1, on the CPU.
    """
    both, ours, theirs = tally(said, true, classes).unbind(2)
    union = ours + theirs - both
    there = union > 0
    each = both / union.clamp_min(1)
    return torch.where(there.any(1), (each * there).sum(1) / there.sum(1).clamp_min(1), 1.0)


class Overlap(Metric):
    """Intersection over union of every class, its mean over the classes, and the share of pixels that are right.

        IoU_k = |said_k and true_k| / |said_k or true_k|,    mIoU = mean over k of IoU_k

    Pixels of all images are counted together before anything is divided, as on Cityscapes and PASCAL VOC. Void pixels
    do not count, whatever is said there; a pixel whose logits are not finite is said to be of no class. Classes that
    are neither said nor true anywhere are left out of the mean, not counted as 0 or 1: it is scikit-learn's
    `jaccard_score(average="macro")` over the classes that occur. Everything lies in 0..1.

    The intervals come from resampling whole images, for the pixels of one image are no independent observations.

    Args:
        classes: names in label order.
    """

    output_kind: ClassVar[OutputKind] = "pixels"
    target_kind: ClassVar[TargetKind | None] = "masks"

    def __init__(self, *, classes: tuple[str, ...]):
        super().__init__(classes, rows=("pixels",))

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Count each image's pixels."""
        self._keep(pixels=tally(decide(output.pred), batch.target, len(self.classes)))

    def compute(self) -> dict[str, Measurement]:
        """`miou`, `iou` by class and `pixel_accuracy`; nothing where every pixel is void."""
        seen = self._seen()
        if seen is None:
            return {}
        both, said, true = seen
        overlap, right = ratios(both, said + true - both), ratios(both.sum(1), true.sum(1))
        images, ends = int((true.sum(1) > 0).sum()), overlap.intervals()
        pixels = {"pixels": int(true.sum())}
        how = f"intersection over union of the pixels of a class, {{}}; void pixels left out; {BOOTSTRAP}"
        return {
            "miou": Measurement(
                value=overlap.value, ci95=ends[0], n=images, how=how.format("mean over the classes"), extra=pixels
            ),
            "iou": self._by_class(overlap.by_class, ends[1], true, images, how.format("all images together")),
            "pixel_accuracy": Measurement(
                value=right.value,
                ci95=right.intervals()[0],
                n=images,
                how=f"share of the pixels that are not void whose class is right; {BOOTSTRAP}",
                extra=pixels,
            ),
        }

    def value(self) -> float:
        """`miou` without its interval; 0 where every pixel is void."""
        seen = self._seen()
        return 0.0 if seen is None else ratios(seen[0], seen[1] + seen[2] - seen[0]).value

    def _by_class(
        self, found: np.ndarray, ends: list[tuple[float, float] | None], true: np.ndarray, images: int, how: str
    ) -> Measurement:
        there = [k for k in range(len(self.classes)) if not np.isnan(found[k])]
        extra = {
            "ci95_by_class": {self.classes[k]: list(both) for k in there if (both := ends[k])},
            "n_by_class": {self.classes[k]: int((true[:, k] > 0).sum()) for k in there},
        }
        return Measurement(value={self.classes[k]: float(found[k]) for k in there}, how=how, n=images, extra=extra)

    def _seen(self) -> tuple[np.ndarray, ...] | None:
        """Pixels [N, K] that both have, that are said and that are true; None where nothing is known of any."""
        kept = self._kept("pixels")
        if kept is None or not kept[..., 2].any():
            return None
        return tuple(part.numpy() for part in kept.unbind(2))

"""Intersection over union (IoU) of predicted and true regions."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillroom.metrics._paired import paired_bootstrap
from stillroom.metrics._ratios import BOOTSTRAP, ratios, weighted_mean
from stillroom.metrics.measurement import Measurement
from stillroom.metrics.metric import Metric, predicted_class
from stillroom.types import Batch, Output, OutputKind, TargetKind


def pixel_counts(predicted: Tensor, true: Tensor, classes: int) -> Tensor:
    """Pixels of each image and class: in both maps, predicted, and true. Void pixels are not counted.

    Args:
        predicted: [B, H, W] int64 in -1..K-1; -1 is no class and never correct.
        true: [B, H, W] int64 in -1..K-1; -1 is void.
        classes: K.

    Returns:
        [B, K, 3] int64, on the CPU.
    """
    predicted, true = predicted.cpu(), true.cpu()
    images, labelled = len(true), true >= 0
    # One confusion matrix [K, K + 1] per image, its last column for -1; a single bincount computes all of them.
    start = torch.arange(images).view(-1, 1, 1) * classes
    cell = (start + true) * (classes + 1) + torch.where(predicted < 0, classes, predicted)
    size = images * classes * (classes + 1)
    confusion = cell[labelled].bincount(minlength=size).view(images, classes, classes + 1)
    columns = confusion.sum(1)[:, :classes]
    return torch.stack((confusion.diagonal(dim1=1, dim2=2), columns, confusion.sum(2)), 2)


def miou_per_image(predicted: Tensor, true: Tensor, classes: int) -> Tensor:
    """Mean IoU of each image, over the classes that are predicted or true in it; 1 where every pixel is void.

    Args:
        predicted: as for `pixel_counts`.
        true: as for `pixel_counts`.
        classes: K.

    Returns:
        [B] float32 in 0..1, on the CPU.
    """
    both, predictions, truths = pixel_counts(predicted, true, classes).unbind(2)
    union = predictions + truths - both
    present = union > 0
    each = both / union.clamp_min(1)
    return torch.where(present.any(1), (each * present).sum(1) / present.sum(1).clamp_min(1), 1.0)


class Overlap(Metric):
    """Intersection over union of each class, its mean over the classes, and pixel accuracy; all in 0..1.

        IoU_k = |predicted_k and true_k| / |predicted_k or true_k|,    mIoU = mean over k of IoU_k

    Pixels are counted over all images before dividing, as for Cityscapes and PASCAL VOC. Void pixels are not counted; a
    pixel whose logits are not finite has no predicted class. Classes that are neither predicted nor true in any image
    are left out of the mean: it is scikit-learn's `jaccard_score(average="macro")` over the classes that occur.

    The intervals come from resampling whole images, because the pixels of one image are not independent.

    Args:
        classes: names in label order.
    """

    output_kind: ClassVar[OutputKind] = "pixels"
    target_kind: ClassVar[TargetKind | None] = "masks"

    def __init__(self, *, classes: tuple[str, ...]):
        super().__init__(classes, rows=("pixels", "keys"))

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Count the pixels of each image."""
        counts = pixel_counts(predicted_class(output.pred), batch.target, len(self.classes))
        self._add_rows(pixels=counts, keys=batch.keys)

    def compute(self) -> dict[str, Measurement]:
        """`miou`, `iou` by class and `pixel_accuracy`; empty where every pixel is void."""
        counts = self._pixel_counts()
        if counts is None:
            return {}
        both, predicted, true = counts
        overlap, right = ratios(both, predicted + true - both), ratios(both.sum(1), true.sum(1))
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
                how=f"share of the pixels, void ones left out, whose class is predicted correctly; {BOOTSTRAP}",
                extra=pixels,
            ),
        }

    def value(self) -> float:
        """`miou` without its interval; 0 where every pixel is void."""
        counts = self._pixel_counts()
        return 0.0 if counts is None else ratios(counts[0], counts[1] + counts[2] - counts[0]).value

    def paired(self, other: Metric) -> Measurement | None:
        """The difference of the mean IoUs, by a paired bootstrap."""
        assert isinstance(other, Overlap)
        if self._pixel_counts() is None:
            return None
        return paired_bootstrap(self._resampled, other._resampled, self._by_key("keys").numpy())

    def _resampled(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """How often each image occurs, [R, N] in the order of their keys -> mean IoU of each resample, [R]."""
        both, predicted, true = self._by_key("pixels").numpy().astype(np.float64).transpose(2, 0, 1)
        return weighted_mean(both, predicted + true - both, weights)

    def _by_class(
        self, found: np.ndarray, ends: list[tuple[float, float] | None], true: np.ndarray, images: int, how: str
    ) -> Measurement:
        present = [k for k in range(len(self.classes)) if not np.isnan(found[k])]
        extra = {
            "ci95_by_class": {self.classes[k]: list(both) for k in present if (both := ends[k])},
            "n_by_class": {self.classes[k]: int((true[:, k] > 0).sum()) for k in present},
        }
        return Measurement(value={self.classes[k]: float(found[k]) for k in present}, how=how, n=images, extra=extra)

    def _pixel_counts(self) -> tuple[np.ndarray, ...] | None:
        """Pixels [N, K] in both maps, predicted, and true; None where every pixel is void."""
        rows = self._all_rows("pixels")
        if rows is None or not rows[..., 2].any():
            return None
        return tuple(part.numpy() for part in rows.unbind(2))

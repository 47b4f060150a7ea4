"""Boundary F: how close predicted contours are to the true ones, to which IoU is hardly sensitive."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.metrics._ratios import BOOTSTRAP, ratios
from stillroom.metrics.measurement import Measurement
from stillroom.metrics.metric import Metric, predicted_class
from stillroom.types import Batch, Output, OutputKind, TargetKind


def contour(regions: Tensor, known: Tensor) -> Tensor:
    """Pixels of a region that have a labelled pixel of another region above, below, left or right of them.

    The image's edge and void are no contour, because the region may continue there.

    Args:
        regions: [K, H, W] bool.
        known: [H, W] bool, False for void.

    Returns:
        [K, H, W] bool.
    """
    outside = F.pad(known & ~regions, (1, 1, 1, 1))
    beside = outside[:, :-2, 1:-1] | outside[:, 2:, 1:-1] | outside[:, 1:-1, :-2] | outside[:, 1:-1, 2:]
    return regions & known & beside


def within(points: Tensor, others: Tensor, radius: float) -> Tensor:
    """Which points have one of the others within `radius` pixels, from centre to centre.

    Args:
        points: [K, H, W] bool.
        others: [K, H, W] bool.
        radius: Euclidean, at least 0.

    Returns:
        [K, H, W] bool.
    """
    reach = int(radius)
    steps = torch.arange(-reach, reach + 1, dtype=torch.float32)
    disc = ((steps[:, None].square() + steps.square()) <= radius**2).float()
    return points & (F.conv2d(others[:, None].float(), disc[None, None], padding=reach)[:, 0] > 0.5)


def contour_counts(predicted: Tensor, true: Tensor, classes: int, tolerance: float) -> Tensor:
    """Contour pixels of one image, by class.

    Args:
        predicted: [H, W] int64 in -1..K-1.
        true: [H, W] int64 in -1..K-1; -1 is void.
        classes: K.
        tolerance: as a fraction of the image's diagonal; at least one pixel.

    Returns:
        [K, 4] int64: predicted pixels within the tolerance of a true one, predicted pixels, true pixels within the
        tolerance of a predicted one, true pixels.
    """
    counts = torch.zeros(classes, 4, dtype=torch.int64)
    known = true >= 0
    present = torch.cat((predicted[known], true[known])).unique()
    present = present[present >= 0]
    radius = max(1.0, tolerance * float(np.hypot(*true.shape)))
    ours, theirs = (contour(image == present.view(-1, 1, 1), known) for image in (predicted, true))
    columns = (within(ours, theirs, radius), ours, within(theirs, ours, radius), theirs)
    counts[present] = torch.stack([column.sum((1, 2)) for column in columns], 1)
    return counts


class Boundary(Metric):
    """Boundary F: the mean over classes of F_k, where F_k is the mean over images of F = 2 P R / (P + R); in 0..1.

    P is the share of the predicted contour of class k in an image that lies within the tolerance of the true contour, R
    the share of the true contour that lies within the tolerance of the predicted one. F is 0 for an image in which only
    one of the two has a contour of the class; an image in which neither has is left out.
    Source: Csurka et al. 2013, What is a good evaluation measure for semantic segmentation?, BMVC,
    https://doi.org/10.5244/C.27.32, section 3; the tolerance of 0.75 % of the image's diagonal is theirs.

    Differs: contour pixels lie inside the region, next to a pixel of another class; the image's edge and void are no
    contour; the tolerance is at least one pixel, because otherwise contours of small images would have to be equal.

    Args:
        classes: names in label order.
        tolerance: above 0, as a fraction of the image's diagonal.

    Raises:
        ValueError: the tolerance is not above 0.
    """

    output_kind: ClassVar[OutputKind] = "pixels"
    target_kind: ClassVar[TargetKind | None] = "masks"

    def __init__(self, *, classes: tuple[str, ...], tolerance: float = 0.0075):
        super().__init__(classes, rows=("contours",))
        if not tolerance > 0:
            raise ValueError(f"tolerance must be above 0, got {tolerance}")
        self.tolerance = tolerance

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Count the contour pixels, image by image: for a whole batch the memory would be B times as large."""
        pairs = zip(predicted_class(output.pred).cpu(), batch.target.cpu(), strict=True)
        self._add_rows(
            contours=torch.stack([contour_counts(p, t, len(self.classes), self.tolerance) for p, t in pairs])
        )

    def compute(self) -> dict[str, Measurement]:
        """`boundary_f`; empty where no image has a true contour."""
        rows = self._all_rows("contours")
        if rows is None or not rows[..., 3].any():
            return {}
        near, predicted, met, true = rows.numpy().astype(np.float64).transpose(2, 0, 1)
        present = (predicted > 0) | (true > 0)
        precision, recall = near / np.maximum(predicted, 1), met / np.maximum(true, 1)
        f = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
        found = ratios(f, present)
        how = (
            f"F of contours, within {self.tolerance:.2%} of the diagonal or one pixel, "
            f"mean over images and then over classes; {BOOTSTRAP}"
        )
        images = int(present.any(1).sum())
        return {"boundary_f": Measurement(value=found.value, ci95=found.intervals()[0], n=images, how=how)}

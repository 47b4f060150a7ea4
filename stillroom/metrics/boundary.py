"""Whether regions end where they should: overlap hardly notices a ragged edge, a person does."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.metrics._ratios import BOOTSTRAP, ratios
from stillroom.metrics.measurement import Measurement
from stillroom.metrics.metric import Metric, decide
from stillroom.types import Batch, Output, OutputKind, TargetKind


def contour(regions: Tensor, known: Tensor) -> Tensor:
    """Pixels of a region beside which, above, below, left or right, there is a known pixel outside of it.

    Neither the image's edge nor void is an outside: there nobody can say where the region ends.

    Args:
        regions: [K, H, W] bool.
        known: [H, W] bool.

    Returns:
        [K, H, W] bool.
    """
    outside = F.pad(known & ~regions, (1, 1, 1, 1))
    beside = outside[:, :-2, 1:-1] | outside[:, 2:, 1:-1] | outside[:, 1:-1, :-2] | outside[:, 1:-1, 2:]
    return regions & known & beside


def within(points: Tensor, others: Tensor, radius: float) -> Tensor:
    """Which points have one of the others at most `radius` pixels away, centre to centre.

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


def edges(said: Tensor, true: Tensor, classes: int, tolerance: float) -> Tensor:
    """Pixels of one image's contours, class by class.

    Args:
        said: [H, W] int64 in -1..K-1.
        true: [H, W] int64 in -1..K-1; -1 is void.
        classes: K.
        tolerance: share of the image's diagonal; never less than one pixel.

    Returns:
        [K, 4] int64: said ones near a true one, said ones, true ones near a said one, true ones.
    """
    found = torch.zeros(classes, 4, dtype=torch.int64)
    known = true >= 0
    there = torch.cat((said[known], true[known])).unique()
    there = there[there >= 0]
    radius = max(1.0, tolerance * float(np.hypot(*true.shape)))
    ours, theirs = (contour(image == there.view(-1, 1, 1), known) for image in (said, true))
    sides = (within(ours, theirs, radius), ours, within(theirs, ours, radius), theirs)
    found[there] = torch.stack([side.sum((1, 2)) for side in sides], 1)
    return found


class Boundary(Metric):
    """Boundary F: the mean over classes of F_k, and F_k the mean over images of F = 2 P R / (P + R).

    P is the share of the said contour of class k in an image that has a pixel of the true one within the tolerance, R
    the share of the true contour that has one of the said one. In 0..1. An image where only one of the two has a
    contour of the class counts 0, one where neither has counts nothing.
    Source: Csurka et al. 2013, What is a good evaluation measure for semantic segmentation?, BMVC,
    https://doi.org/10.5244/C.27.32, section 3; the tolerance of 0.75 % of the image's diagonal is theirs.

    Differs: contours are pixels of the region itself with a neighbour of another class; the image's edge and void are
    no contour; the tolerance is at least one pixel, without which small images would have to match exactly.

    Args:
        classes: names in label order.
        tolerance: above 0, in shares of the image's diagonal.

    Raises:
        ValueError: the tolerance is not above 0.
    """

    output_kind: ClassVar[OutputKind] = "pixels"
    target_kind: ClassVar[TargetKind | None] = "masks"

    def __init__(self, *, classes: tuple[str, ...], tolerance: float = 0.0075):
        super().__init__(classes, rows=("edges",))
        if not tolerance > 0:
            raise ValueError(f"tolerance must be above 0, got {tolerance}")
        self.tolerance = tolerance

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Count each image's contours. Contours of whole batches at once would need K times the memory."""
        pairs = zip(decide(output.pred).cpu(), batch.target.cpu(), strict=True)
        self._keep(edges=torch.stack([edges(s, t, len(self.classes), self.tolerance) for s, t in pairs]))

    def compute(self) -> dict[str, Measurement]:
        """`boundary_f`; nothing where no image has a contour."""
        kept = self._kept("edges")
        if kept is None or not kept[..., 3].any():
            return {}
        near, said, met, true = kept.numpy().astype(np.float64).transpose(2, 0, 1)
        there = (said > 0) | (true > 0)
        precision, recall = near / np.maximum(said, 1), met / np.maximum(true, 1)
        f = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
        found = ratios(f, there)
        how = (
            f"F of contours, {self.tolerance:.2%} of the diagonal or one pixel apart at most, "
            f"mean over images and then classes; {BOOTSTRAP}"
        )
        images = int(there.any(1).sum())
        return {"boundary_f": Measurement(value=found.value, ci95=found.intervals()[0], n=images, how=how)}

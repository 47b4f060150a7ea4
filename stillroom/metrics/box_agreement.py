"""Agreement of boxes with a reference: whether both detect the same objects with the same scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stillroom.metrics._bootstrap import RESAMPLES, percentile_interval, resample_counts
from stillroom.metrics.measurement import Measurement
from stillroom.metrics.metric import Metric
from stillroom.ops.boxes import area, iou
from stillroom.types import Batch, Output, OutputKind, TargetKind

MIN_IOU = 0.5
"""Boxes that overlap less are never matched."""


@dataclass(frozen=True)
class BoxComparison:
    """Two sets of boxes for the same B images, compared.

    Attributes:
        agreement: [B] in 0..1, see `compare_boxes`.
        max_difference: [B], the largest score difference of two matched boxes; 0 where none are matched.
        total_difference: [B], the sum of those differences.
        total_iou: [B], the sum of the matched boxes' IoU.
        pairs: [B] int64, number of matched pairs.
    """

    agreement: Tensor
    max_difference: Tensor
    total_difference: Tensor
    total_iou: Tensor
    pairs: Tensor


@torch.no_grad()
def compare_boxes(boxes: Tensor, other: Tensor) -> BoxComparison:
    """Match two sets of boxes, and compute their agreement.

        agreement_b = 2 sum_{(i, j) matched} s_i r_j / (sum_i s_i^2 + sum_j r_j^2)

    s and r are the scores. This is a Dice coefficient in which each box is weighted by its squared score: an unmatched
    box lowers the agreement according to its score, and a hundred boxes of score 0.02 count less than one of 0.3. No
    score threshold is needed. Boxes of one class with an IoU of at least 0.5 may be matched: greedily, the pair with
    the largest IoU first, each box once; of equal IoUs the pair with the closer scores.

    Args:
        boxes: [B, M, 6] left, top, right, bottom, score in 0..1, class. Rows of class -1 and boxes without area are
            ignored.
        other: [B, N, 6], of the same images, in the same units.

    Returns:
        Agreement in 0..1. 1 where the boxes are equal, in any order, and where neither side has a box; 0 where a number
        of either side is not finite.
    """
    ours, theirs = boxes.cpu().double(), other.cpu().double()
    finite = _finite(ours) & _finite(theirs)
    s, r = (_scores(x, finite) for x in (ours, theirs))
    overlap = iou(ours[:, :, None, :4], theirs[:, None, :, :4])
    difference = (s[:, :, None] - r[:, None]).abs()
    allowed = (ours[:, :, None, 5] == theirs[:, None, :, 5]) & (overlap >= MIN_IOU)
    allowed &= (s > 0)[:, :, None] & (r > 0)[:, None]
    matched = _greedy(torch.where(allowed, overlap - 1e-6 * difference, -1.0))
    weight = s.square().sum(1) + r.square().sum(1)
    shared = (matched * s[:, :, None] * r[:, None]).sum((1, 2))
    # Rounding may push the quotient of two equal sums above 1.
    agreement = torch.where(weight > 0, 2 * shared / weight.clamp_min(1e-300), 1.0).clamp(0, 1) * finite
    difference, overlap = difference * matched, overlap.nan_to_num() * matched
    return BoxComparison(
        agreement, _maximum(difference), difference.sum((1, 2)), overlap.sum((1, 2)), matched.sum((1, 2))
    )


class BoxAgreement(Metric):
    """Mean over images of the agreement of `compare_boxes`; in 0..1.

    The figure also holds the largest and the mean score difference of matched boxes, and their mean IoU. An image where
    a number of either side is not finite counts as agreement 0 and difference 1. Batches without a reference are not
    counted.

    Args:
        classes: names in label order; not used.
    """

    output_kind: ClassVar[OutputKind] = "boxes"
    target_kind: ClassVar[TargetKind | None] = None

    def __init__(self, *, classes: tuple[str, ...]):
        super().__init__(classes, rows=("images",))

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Compare one batch with the reference."""
        if reference is None:
            return
        found = compare_boxes(output.pred, reference.pred)
        largest = torch.where(_finite(output.pred) & _finite(reference.pred), found.max_difference, 1.0)
        columns = (found.agreement, largest, found.total_difference, found.total_iou, found.pairs.double())
        self._add_rows(images=torch.stack(columns, 1))

    def compute(self) -> dict[str, Measurement]:
        """`agreement`, with an interval by image bootstrap; empty without a reference."""
        rows = self._all_rows("images")
        if rows is None or not len(rows):
            return {}
        # Sorted, so that sums are rounded the same way for any order of the images.
        rows = torch.tensor(sorted(rows.tolist()), dtype=torch.float64)
        agreement, pairs = rows[:, 0].numpy(), max(1.0, float(rows[:, 4].sum()))
        value = float(agreement.mean())
        ends = None
        if len(agreement) > 1:
            counts = resample_counts(len(agreement), agreement.tobytes())
            ends = percentile_interval(counts @ agreement / len(agreement), value)
        how = "mean over images of the score-weighted Dice coefficient of the boxes of both"
        extra = {
            "max_difference": float(rows[:, 1].max()),
            "mean_difference": float(rows[:, 2].sum()) / pairs,
            "mean_iou": float(rows[:, 3].sum()) / pairs,
        }
        how += f"; 95 % interval from {RESAMPLES} resamples of the images" if ends else ""
        return {"agreement": Measurement(value=value, ci95=ends, n=len(agreement), how=how, extra=extra)}


def _finite(boxes: Tensor) -> Tensor:
    return boxes.cpu().isfinite().flatten(1).all(1)


def _scores(boxes: Tensor, finite: Tensor) -> Tensor:
    """[B, M], 0 for rows that are ignored and for images that are not finite."""
    used = finite[:, None] & (boxes[..., 5] >= 0) & (area(boxes[..., :4]) > 0)
    return torch.where(used, boxes[..., 4], 0.0).clamp_min(0)


def _maximum(values: Tensor) -> Tensor:
    return values.flatten(1).amax(1) if values[0].numel() else values.new_zeros(len(values))


def _greedy(affinity: Tensor) -> Tensor:
    """[B, M, N] -> [B, M, N] bool: pairs in descending order of affinity, above 0, each row and column at most once."""
    remaining, matched = affinity.clone(), torch.zeros_like(affinity, dtype=torch.bool)
    images = torch.arange(len(affinity))
    for _ in range(min(affinity.shape[1:])):
        best, index = remaining.flatten(1).max(1)
        row, column, positive = index // affinity.shape[2], index % affinity.shape[2], best > 0
        if not positive.any():
            break
        matched[images[positive], row[positive], column[positive]] = True
        remaining[images, row] = -1.0
        remaining[images, :, column] = -1.0
    return matched

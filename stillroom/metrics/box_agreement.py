"""Agreement of boxes with a reference's: whether both find the same objects, and are as sure of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stillroom.metrics._bootstrap import RESAMPLES, interval, resamples
from stillroom.metrics.measurement import Measurement
from stillroom.metrics.metric import Metric
from stillroom.ops.boxes import area, iou
from stillroom.types import Batch, Output, OutputKind, TargetKind

LEAST = 0.5


@dataclass(frozen=True)
class Likeness:
    """How two answers to the same B images compare.

    Attributes:
        agreement: [B] in 0..1, see `compared`.
        largest: [B], the largest difference of two matched boxes' scores; 0 where none are matched.
        apart: [B], the sum of those differences.
        overlap: [B], the sum of the matched boxes' IoU.
        pairs: [B] int64, how many boxes are matched.
    """

    agreement: Tensor
    largest: Tensor
    apart: Tensor
    overlap: Tensor
    pairs: Tensor


@torch.no_grad()
def compared(answer: Tensor, other: Tensor) -> Likeness:
    """How alike the boxes of two answers are.

        agreement_b = 2 sum_{(i, j) matched} s_i r_j / (sum_i s_i^2 + sum_j r_j^2)

    s and r are the scores. It is the Dice coefficient of what the two see, each box as heavy as its score squared: a
    box seen by one alone counts as far as that one was sure of it, and a hundred boxes of score 0.02 weigh less than
    one of 0.3. There is no threshold that a score could fall across. Matched are boxes of one class whose IoU is at
    least 0.5, the pair that overlaps most first, each box once; of equal overlaps the nearer scores.

    Args:
        answer: [B, M, 6] left, top, right, bottom, score in 0..1, class; class -1 is no box, nor is one without area.
        other: [B, N, 6], of the same images, in the same units.

    Returns:
        Agreement in 0..1. 1 where the boxes are the same, in whatever order, and where neither has any; 0 where a
        number of either is not finite.
    """
    ours, theirs = answer.cpu().double(), other.cpu().double()
    sound = _finite(ours) & _finite(theirs)
    s, r = (_scores(x, sound) for x in (ours, theirs))
    near = iou(ours[:, :, None, :4], theirs[:, None, :, :4])
    apart = (s[:, :, None] - r[:, None]).abs()
    able = (ours[:, :, None, 5] == theirs[:, None, :, 5]) & (near >= LEAST)
    able &= (s > 0)[:, :, None] & (r > 0)[:, None]
    taken = _greedy(torch.where(able, near - 1e-6 * apart, -1.0))
    weight = s.square().sum(1) + r.square().sum(1)
    shared = (taken * s[:, :, None] * r[:, None]).sum((1, 2))
    # Rounding may push the quotient of two equal sums past 1.
    alike = torch.where(weight > 0, 2 * shared / weight.clamp_min(1e-300), 1.0).clamp(0, 1) * sound
    apart, near = apart * taken, near.nan_to_num() * taken
    return Likeness(alike, _most(apart), apart.sum((1, 2)), near.sum((1, 2)), taken.sum((1, 2)))


class BoxAgreement(Metric):
    """Mean over images of how alike two answers are, see `compared`; in 0..1.

    The figure also says how far the scores of matched boxes are apart, at most and in the mean, and by how much these
    boxes overlap in the mean. An image where either answer is not finite is 0, and its difference 1. Batches without
    a reference are not counted.
    """

    output_kind: ClassVar[OutputKind] = "boxes"
    target_kind: ClassVar[TargetKind | None] = None

    def __init__(self, *, classes: tuple[str, ...]):
        super().__init__(classes, rows=("images",))

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Compare the answers of one batch."""
        if reference is None:
            return
        found = compared(output.pred, reference.pred)
        largest = torch.where(_finite(output.pred) & _finite(reference.pred), found.largest, 1.0)
        columns = (found.agreement, largest, found.apart, found.overlap, found.pairs.double())
        self._keep(images=torch.stack(columns, 1))

    def compute(self) -> dict[str, Measurement]:
        """`agreement`, with an interval by image bootstrap; nothing when nobody was compared with."""
        rows = self._kept("images")
        if rows is None or not len(rows):
            return {}
        # In one order, so that sums round the same way however the images came.
        rows = torch.tensor(sorted(rows.tolist()), dtype=torch.float64)
        alike, pairs = rows[:, 0].numpy(), max(1.0, float(rows[:, 4].sum()))
        value = float(alike.mean())
        ends = None
        if len(alike) > 1:
            ends = interval(resamples(len(alike), alike.tobytes()) @ alike / len(alike), value)
        how = "mean over images of twice the score-weighted boxes that both find, over all that either finds"
        extra = {
            "max_difference": float(rows[:, 1].max()),
            "mean_difference": float(rows[:, 2].sum()) / pairs,
            "mean_iou": float(rows[:, 3].sum()) / pairs,
        }
        how += f"; 95 % interval from {RESAMPLES} resamples of the images" if ends else ""
        return {"agreement": Measurement(value=value, ci95=ends, n=len(alike), how=how, extra=extra)}


def _finite(answer: Tensor) -> Tensor:
    return answer.cpu().isfinite().flatten(1).all(1)


def _scores(answer: Tensor, sound: Tensor) -> Tensor:
    """[B, M], 0 where there is no box, or nothing that can be read."""
    there = sound[:, None] & (answer[..., 5] >= 0) & (area(answer[..., :4]) > 0)
    return torch.where(there, answer[..., 4], 0.0).clamp_min(0)


def _most(values: Tensor) -> Tensor:
    return values.flatten(1).amax(1) if values[0].numel() else values.new_zeros(len(values))


def _greedy(near: Tensor) -> Tensor:
    """Pairs by falling nearness, each row and column once, until none is above 0: [B, M, N] bool."""
    left, taken = near.clone(), torch.zeros_like(near, dtype=torch.bool)
    images = torch.arange(len(near))
    for _ in range(min(near.shape[1:])):
        best, at = left.flatten(1).max(1)
        row, column, able = at // near.shape[2], at % near.shape[2], best > 0
        if not able.any():
            break
        taken[images[able], row[able], column[able]] = True
        left[images, row] = -1.0
        left[images, :, column] = -1.0
    return taken

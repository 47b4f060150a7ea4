"""Which found boxes are right, kept so that a resample of the images costs a sum and no new comparison.

The rules are those of COCO's evaluation (Lin et al. 2014, https://arxiv.org/abs/1405.0312; https://cocodataset.org
under "Detection evaluation"), for boxes of any size and at most `MOST` found boxes of a class in an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = 100
WORKING = 4_000_000  # numbers held at a time

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Matches:
    """One class: its D found boxes, by falling score, at T thresholds of IoU.

    Attributes:
        image: [D], which of the N images a box was found in.
        hit: [T, D], whether it is a truth's.
        ignored: [T, D], whether it is neither right nor wrong, for it lies on a crowd.
        truths: [N], boxes to be found in each image, crowds left out.
    """

    image: NDArray[np.int64]
    hit: Bools
    ignored: Bools
    truths: NDArray[np.int64]


def matched(found: Floats, truth: Floats, images: int) -> Matches:
    """Match one class, image by image.

    Args:
        found: [D, 6] image, left, top, right, bottom, score; images in rising order.
        truth: [G, 6] image, left, top, right, bottom, crowd; likewise.
        images: N.
    """
    found = np.concatenate([_best(part) for part in _by_image(found, images)])
    hit, ignored = (np.zeros((len(IOUS), len(found)), dtype=bool) for _ in range(2))
    begin = np.searchsorted(found[:, 0], np.arange(images + 1))
    for image, real in enumerate(_by_image(truth, images)):
        here = slice(begin[image], begin[image + 1])
        if len(real) and here.start < here.stop:
            hit[:, here], ignored[:, here] = _assigned(found[here, 1:5], real[:, 1:5], real[:, 5] > 0)
    order = np.argsort(-found[:, 5], kind="stable")
    truths = np.bincount(truth[truth[:, 5] == 0, 0].astype(np.int64), minlength=images)
    return Matches(found[order, 0].astype(np.int64), hit[:, order], ignored[:, order], truths.astype(np.int64))


def average_precision(matches: Matches, weights: NDArray[np.int64]) -> Floats:
    """Average precision at each threshold, when the i-th image is there weights[., i] times.

        AP = 1/101 sum_{r in 0, 0.01 .. 1} max_{r' >= r} precision(r')

    A box found in an image that is there w times counts w times: as many equal scores in a row, of which the last
    alone can be a corner of the curve, so nothing is lost against the w images written out.

    Args:
        matches: of one class.
        weights: [R, N], 0 or more.

    Returns:
        [R, T] in 0..1; NaN where there is nothing to find.
    """
    step = max(1, WORKING // max(len(matches.image), 1))
    parts = [_average(matches, weights[at : at + step]) for at in range(0, len(weights), step)]
    return np.concatenate(parts)


def _average(matches: Matches, weights: NDArray[np.int64]) -> Floats:
    total = (weights @ matches.truths)[:, None]
    each = weights[:, matches.image]
    seen = each.cumsum(1)
    found = np.zeros((len(weights), len(IOUS)))
    for t, (hit, ignored) in enumerate(zip(matches.hit, matches.ignored, strict=True)):
        at, lost = np.flatnonzero(hit), np.flatnonzero(ignored)
        less = np.insert(each[:, lost].cumsum(1), 0, 0, axis=1)[:, np.searchsorted(lost, at)]
        counted = seen[:, at] - less
        right = each[:, at].cumsum(1)
        precision = right / np.maximum(counted, 1)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = np.searchsorted(RECALLS, right / np.maximum(total, 1), side="right")
        found[:, t] = (best * np.diff(reached, axis=1, prepend=0)).sum(1) / len(RECALLS)
    return np.where(total > 0, found, np.nan)


def _by_image(rows: Floats, images: int) -> list[Floats]:
    """The rows of each of N images."""
    return np.split(rows, np.searchsorted(rows[:, 0], np.arange(1, images)))


def _best(rows: Floats) -> Floats:
    return rows[np.argsort(-rows[:, 5], kind="stable")[:MOST]]


def _assigned(found: Floats, truth: Floats, crowd: Bools) -> tuple[Bools, Bools]:
    """[D, 4] by falling score, [G, 4], [G] -> hit [T, D], ignored [T, D].

    Each found box in turn takes the free truth that it covers best, if by enough; else a crowd, which is never used up.
    """
    overlaps = _overlaps(found, truth, crowd)
    hit, ignored = (np.zeros((len(IOUS), len(found)), dtype=bool) for _ in range(2))
    taken = np.zeros((len(IOUS), len(truth)), dtype=bool)
    rows = np.arange(len(IOUS))
    for d in np.flatnonzero(overlaps.max(1) >= IOUS[0]):
        enough = overlaps[d] >= IOUS[:, None]
        free = enough & ~taken & ~crowd
        real = free.any(1)
        best = _last_largest(np.where(free, overlaps[d], -1.0))
        hit[real, d] = True
        taken[rows[real], best[real]] = True
        ignored[:, d] = ~real & (enough & crowd).any(1)
    return hit, ignored


def _last_largest(values: Floats) -> NDArray[np.int64]:
    """Argmax along the last axis; of equal ones the last, as COCO's loop has it."""
    return values.shape[1] - 1 - values[:, ::-1].argmax(1)


def _overlaps(found: Floats, truth: Floats, crowd: Bools) -> Floats:
    """Intersection over union [D, G]; of a crowd, intersection over the found box, which may be any part of it."""
    low = np.maximum(found[:, None, :2], truth[:, :2])
    high = np.minimum(found[:, None, 2:], truth[:, 2:])
    shared = (high - low).clip(0).prod(2)
    ours, theirs = ((box[:, 2:] - box[:, :2]).prod(1) for box in (found, truth))
    whole = np.where(crowd, ours[:, None], ours[:, None] + theirs - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)

"""Matching of detections to true boxes, kept per image so that a bootstrap resample needs no new matching.

The rules are those of COCO's evaluation (Lin et al. 2014, https://arxiv.org/abs/1405.0312; https://cocodataset.org,
"Detection evaluation"), for objects of any size and at most `MAX_DETECTIONS` detections per class and image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MAX_DETECTIONS = 100
MAX_ELEMENTS = 4_000_000  # of an array of weights [resamples, detections]; bounds the memory

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Matches:
    """One class: its D detections in descending order of score, at T IoU thresholds.

    Attributes:
        image: [D], index of the detection's image, of N.
        hit: [T, D], whether it is matched to a true box.
        ignored: [T, D], whether it is not counted, because it lies on a crowd.
        truths: [N], true boxes in each image, without crowds.
    """

    image: NDArray[np.int64]
    hit: Bools
    ignored: Bools
    truths: NDArray[np.int64]


def match_boxes(found: Floats, truth: Floats, images: int) -> Matches:
    """Match the boxes of one class, image by image.

    Args:
        found: detections [D, 6] image, left, top, right, bottom, score; images in ascending order.
        truth: true boxes [G, 6] image, left, top, right, bottom, crowd; images in ascending order.
        images: N.
    """
    found = np.concatenate([_top_scores(part) for part in _by_image(found, images)])
    hit, ignored = (np.zeros((len(IOUS), len(found)), dtype=bool) for _ in range(2))
    begin = np.searchsorted(found[:, 0], np.arange(images + 1))
    for image, real in enumerate(_by_image(truth, images)):
        own = slice(begin[image], begin[image + 1])
        if len(real) and own.start < own.stop:
            hit[:, own], ignored[:, own] = _assigned(found[own, 1:5], real[:, 1:5], real[:, 5] > 0)
    order = np.argsort(-found[:, 5], kind="stable")
    truths = np.bincount(truth[truth[:, 5] == 0, 0].astype(np.int64), minlength=images)
    return Matches(found[order, 0].astype(np.int64), hit[:, order], ignored[:, order], truths.astype(np.int64))


def average_precision(matches: Matches, weights: NDArray[np.int64]) -> Floats:
    """Average precision at each IoU threshold, when image i occurs weights[., i] times.

        AP = 1/101 sum_{r in 0, 0.01 .. 1} max_{r' >= r} precision(r')

    A detection in an image that occurs w times counts w times. This equals w copies of the image: their detections have
    equal scores and follow each other, and only the last of them can be a corner of the precision-recall curve.

    Args:
        matches: of one class.
        weights: [R, N], at least 0.

    Returns:
        [R, T] in 0..1; NaN where there is no true box.
    """
    step = max(1, MAX_ELEMENTS // max(len(matches.image), 1))
    parts = [_average(matches, weights[start : start + step]) for start in range(0, len(weights), step)]
    return np.concatenate(parts)


def _average(matches: Matches, weights: NDArray[np.int64]) -> Floats:
    total = (weights @ matches.truths)[:, None]
    each = weights[:, matches.image]
    cumulative = each.cumsum(1)
    result = np.zeros((len(weights), len(IOUS)))
    for t, (hit, ignored) in enumerate(zip(matches.hit, matches.ignored, strict=True)):
        at, lost = np.flatnonzero(hit), np.flatnonzero(ignored)
        less = np.insert(each[:, lost].cumsum(1), 0, 0, axis=1)[:, np.searchsorted(lost, at)]
        counted = cumulative[:, at] - less
        right = each[:, at].cumsum(1)
        precision = right / np.maximum(counted, 1)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = np.searchsorted(RECALLS, right / np.maximum(total, 1), side="right")
        result[:, t] = (best * np.diff(reached, axis=1, prepend=0)).sum(1) / len(RECALLS)
    return np.where(total > 0, result, np.nan)


def _by_image(rows: Floats, images: int) -> list[Floats]:
    """The rows of each of N images."""
    return np.split(rows, np.searchsorted(rows[:, 0], np.arange(1, images)))


def _top_scores(rows: Floats) -> Floats:
    return rows[np.argsort(-rows[:, 5], kind="stable")[:MAX_DETECTIONS]]


def _assigned(found: Floats, truth: Floats, crowd: Bools) -> tuple[Bools, Bools]:
    """[D, 4] in descending order of score, [G, 4], [G] -> hit [T, D], ignored [T, D].

    Each detection in turn is matched to the unmatched true box with the largest IoU, if that reaches the threshold;
    otherwise to a crowd, which can be matched any number of times.
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
    """Argmax along the last axis; the last of equal values, as in COCO's loop."""
    return values.shape[1] - 1 - values[:, ::-1].argmax(1)


def _overlaps(found: Floats, truth: Floats, crowd: Bools) -> Floats:
    """IoU [D, G]; for a crowd the intersection over the detection's area, which may cover any part of the crowd."""
    low = np.maximum(found[:, None, :2], truth[:, :2])
    high = np.minimum(found[:, None, 2:], truth[:, 2:])
    intersection = (high - low).clip(0).prod(2)
    found_area, true_area = ((box[:, 2:] - box[:, :2]).prod(1) for box in (found, truth))
    union = np.where(crowd, found_area[:, None], found_area[:, None] + true_area - intersection)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)

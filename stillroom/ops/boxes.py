"""Box geometry: conversions, areas, IoU and GIoU.

A box is left, top, right, bottom, relative to the image's width and height unless stated otherwise. Overlaps are the
same in relative coordinates and in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-9
"""Smallest area, relative to the image, in a denominator: prevents 0 / 0 for degenerate boxes."""


def to_corners(boxes: Tensor) -> Tensor:
    """[..., 4] centre x, centre y, width, height -> left, top, right, bottom."""
    x, y, w, h = boxes.unbind(-1)
    return torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), -1)


def to_centres(boxes: Tensor) -> Tensor:
    """[..., 4] left, top, right, bottom -> centre x, centre y, width, height."""
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack(((left + right) / 2, (top + bottom) / 2, right - left, bottom - top), -1)


def in_pixels(boxes: Tensor, height: int, width: int) -> Tensor:
    """[..., 4] relative -> pixels of an image of that size, which may stay dynamic in an exported program."""
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack((left * width, top * height, right * width, bottom * height), -1)


def clip(boxes: Tensor) -> Tensor:
    """[..., 4] relative, clipped to the image."""
    return boxes.clamp(0, 1)


def area(boxes: Tensor) -> Tensor:
    """[..., 4] -> [...]; 0 for a box with right < left or bottom < top."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Area of the intersection / area of the union, elementwise: [..., 4], [..., 4] -> [...].

    The leading axes broadcast: `iou(a[..., :, None, :], b[..., None, :, :])` is the matrix [..., A, M] of all pairs.

    Returns:
        0..1; 1 for equal boxes, 0 for disjoint boxes and for boxes without area.
    """
    return _iou_and_union(boxes, others)[0]


def giou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU - (C - U) / C: U the area of the union, C of the smallest enclosing box; elementwise as `iou`.

    Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630, algorithm 1. Disjoint boxes have a gradient too.

    Returns:
        -1..1; 1 for equal boxes, towards -1 with growing distance. A box without area counts as a point or line; all
        gradients are finite, and 0 for a point inside the other box.
    """
    overlap, union = _iou_and_union(boxes, others)
    low, high = torch.minimum(boxes, others), torch.maximum(boxes, others)
    enclosing = area(torch.cat((low[..., :2], high[..., 2:]), -1)).clamp(min=EPSILON)
    return overlap - (enclosing - union) / enclosing


def _iou_and_union(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    # Coordinates are unbound, not kept as [..., 4]: for all pairs of 300 boxes this takes less than half the time.
    ours, theirs = boxes.unbind(-1), others.unbind(-1)
    width = torch.minimum(ours[2], theirs[2]) - torch.maximum(ours[0], theirs[0])
    height = torch.minimum(ours[3], theirs[3]) - torch.maximum(ours[1], theirs[1])
    common = width.clamp(min=0) * height.clamp(min=0)
    union = area(boxes) + area(others) - common
    return common / union.clamp(min=EPSILON), union

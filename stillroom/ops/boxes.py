"""Boxes: how far they overlap, which of many are one object, and what labels charge a detector for its own.

A box is left, top, right, bottom, in shares of the image's width and height unless said otherwise. Overlaps are the
same in shares and in pixels. Letters besides those of `types`: A places, M boxes that are known, N candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-9
"""Of an area in shares: below it a box is a line. Keeps 0 / 0 out of overlaps of degenerate boxes."""


def to_corners(boxes: Tensor) -> Tensor:
    """[..., 4] centre x, centre y, width, height -> left, top, right, bottom."""
    x, y, w, h = boxes.unbind(-1)
    return torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), -1)


def to_centres(boxes: Tensor) -> Tensor:
    """[..., 4] left, top, right, bottom -> centre x, centre y, width, height."""
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack(((left + right) / 2, (top + bottom) / 2, right - left, bottom - top), -1)


def in_pixels(boxes: Tensor, height: int, width: int) -> Tensor:
    """[..., 4] in shares -> in pixels of an image of that size; exports with the size left open."""
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack((left * width, top * height, right * width, bottom * height), -1)


def clip(boxes: Tensor) -> Tensor:
    """[..., 4] in shares, cut off at the image's border."""
    return boxes.clamp(0, 1)


def area(boxes: Tensor) -> Tensor:
    """[..., 4] -> [...]; 0 for a box whose right is left of its left, or whose bottom is above its top."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Area of the common part / area of both together, of boxes in pairs: [..., 4], [..., 4] -> [...].

    The leading axes broadcast: `iou(a[..., :, None, :], b[..., None, :, :])` is each of A with each of M, [..., A, M].

    Returns:
        0..1; 1 for equal boxes, 0 where nothing is common and for a box without area.
    """
    return _overlap(boxes, others)[0]


def giou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU - (C - U) / C: U the area of both together, C of the smallest box around both, in pairs as `iou`.

    Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630, algorithm 1. Boxes apart from each other still pull.

    Returns:
        -1..1; 1 for equal boxes, towards -1 the farther apart they are. A box without area counts as its point or
        line, and every gradient is finite; of a point inside the other box it is 0.
    """
    found, union = _overlap(boxes, others)
    low, high = torch.minimum(boxes, others), torch.maximum(boxes, others)
    around = area(torch.cat((low[..., :2], high[..., 2:]), -1)).clamp(min=EPSILON)
    return found - (around - union) / around


def _overlap(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    # Side by side, not as [..., 4]: of all pairs of 300 boxes that is less than half the time.
    ours, theirs = boxes.unbind(-1), others.unbind(-1)
    width = torch.minimum(ours[2], theirs[2]) - torch.maximum(ours[0], theirs[0])
    height = torch.minimum(ours[3], theirs[3]) - torch.maximum(ours[1], theirs[1])
    common = width.clamp(min=0) * height.clamp(min=0)
    union = area(boxes) + area(others) - common
    return common / union.clamp(min=EPSILON), union

"""Non-maximum suppression that can be exported."""

from __future__ import annotations

import torch
from torch import Tensor

from stillroom.ops.boxes import iou

ROUNDS = 16
"""Length up to which a chain of boxes, each suppressing the next, is resolved exactly. 300 boxes scattered around one
object have chains of up to 12."""


def nms(boxes: Tensor, classes: Tensor, limit: float, rounds: int = ROUNDS) -> Tensor:
    """Non-maximum suppression per class: keep the boxes whose IoU with every better kept box is at most `limit`.

    All operations have fixed shapes, so that it can be exported: Cluster-NMS, Zheng et al. 2020,
    https://arxiv.org/abs/2005.03572, section 4, with the same number of rounds for every image. Equal to the greedy
    algorithm for the first `rounds` boxes of a chain in which each box suppresses the next; later boxes may differ.

    Args:
        boxes: [B, N, 4], by descending score.
        classes: [B, N], of any type; boxes of different classes do not suppress each other.
        limit: greatest IoU of two kept boxes, 0..1.
        rounds: at least 1.

    Returns:
        [B, N] bool, whether each box is kept.
    """
    n = boxes.shape[1]
    better = torch.ones(n, n, dtype=torch.bool, device=boxes.device).tril(-1)
    overlapping = iou(boxes[:, :, None], boxes[:, None]) > limit
    same_class = classes[:, :, None] == classes[:, None]
    suppresses = (overlapping & same_class & better).to(boxes.dtype)  # [b, i, j]: j suppresses i
    kept = torch.ones_like(suppresses[:, :, 0])
    for _ in range(rounds):  # products and maxima instead of a matrix product, which exporters would quantise
        kept = 1 - (suppresses * kept[:, None]).amax(-1)
    return kept > 0.5

"""Non-maximum suppression that exports."""

from __future__ import annotations

import torch
from torch import Tensor

from stillroom.ops.boxes import iou

ROUNDS = 16
"""Of `suppress`: how long a chain of boxes, each in the way of the next, is resolved exactly. 300 boxes scattered about
one object have chains of up to 12."""


def nms(boxes: Tensor, classes: Tensor, limit: float, rounds: int = ROUNDS) -> Tensor:
    """Which boxes to keep: those that overlap no kept box of their class that stands before them by more than `limit`.

    Non-maximum suppression in operations of fixed shape, so that it exports: Cluster-NMS, Zheng et al. 2020,
    https://arxiv.org/abs/2005.03572, section 4, with the same number of rounds for every image. The first `rounds`
    boxes of a chain, each in the way of the next, come out as by the greedy loop; what hangs on a longer one may not.

    Args:
        boxes: [B, N, 4], by falling score.
        classes: [B, N], of any type; boxes of two classes leave each other alone.
        limit: greatest overlap of two kept boxes, 0..1.
        rounds: at least 1.

    Returns:
        [B, N] bool.
    """
    n = boxes.shape[1]
    before = torch.ones(n, n, dtype=torch.bool, device=boxes.device).tril(-1)
    near = iou(boxes[:, :, None], boxes[:, None]) > limit
    blocks = (near & (classes[:, :, None] == classes[:, None]) & before).to(boxes.dtype)  # [b, i, j]: j blocks i
    kept = torch.ones_like(blocks[:, :, 0])
    for _ in range(rounds):  # products and maxima, not a matrix product: exporters would round that to integers
        kept = 1 - (blocks * kept[:, None]).amax(-1)
    return kept > 0.5

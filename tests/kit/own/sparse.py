"""A compression of one's own, whole: the smallest weights become zero."""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from torch import nn


class Sparse:
    """Zero the given share of each layer's weights, those of least magnitude, and again after training.

    Args:
        share: 0 to below 1.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    rounds, between = 1, "teacher"

    def __init__(self, *, share: float = 0.5):
        if not 0 <= share < 1:
            raise ValueError(f"share must be at least 0 and below 1, got {share}")
        self.share = share

    def shrink(self, network, view, round):
        """A copy with the zeros."""
        return self.settle(copy.deepcopy(network)).eval()

    @torch.no_grad()
    def settle(self, network):
        """The zeros once more, for training has filled them."""
        for part in network.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                least = part.weight.abs().flatten().kthvalue(max(1, int(self.share * part.weight.numel()))).values
                part.weight[part.weight.abs() <= least] = 0.0
        return network

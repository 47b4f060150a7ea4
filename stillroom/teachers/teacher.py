"""The contract of a teacher: where targets come from. Never part of what is trained."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from stillroom.types import Output


class Teacher(Protocol):
    """Computes targets from images, without gradient. Not in the optimiser, DDP or the student's checkpoint."""

    def __call__(self, views: tuple[Tensor, ...], keys: Tensor, taps: tuple[str, ...]) -> Output:
        """The outputs for each view, joined along the batch: pred [V*B, K].

        Args:
            views: each [B, C, H, W] in 0..1.
            keys: [B] int64; equal keys mean equal pixels, so an output may be stored under them.
            taps: names of the inner features to return.
        """

    def update(self, learner: nn.Module, step: int) -> None:
        """Called after every optimiser step. Most teachers do nothing."""

"""The contract of a task: what the labels ask for, and how well it was done. The only reader of `batch.target`."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from stillroom.types import Batch, Output, Terms


class Task(Protocol):
    """An object without parameters."""

    def outputs(self, classes: int) -> int:
        """How many numbers a network must give for each place it speaks about."""

    def loss(self, output: Output, batch: Batch) -> Terms:
        """What the labels charge the student: raw, named scalars."""

    def decode(self, output: Output) -> Tensor:
        """The prediction a person would read."""

    def score(self, output: Output, batch: Batch) -> Tensor:
        """How right each image is, [B] in 0..1, higher is better; selection uses its mean over the val split."""

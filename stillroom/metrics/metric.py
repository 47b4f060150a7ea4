"""What a metric is: counts that grow batch by batch, add up over processes, and become figures at the end."""

from __future__ import annotations

import torch
from torch import Tensor

from stillroom.metrics._figure import Figure
from stillroom.types import Batch, Output


class Metric:
    """Base of all metrics. A subclass names its counts, counts in `update`, and divides in `compute`.

    Everything a metric knows is in its counts, and counts only ever grow by addition. So a whole equals its pieces
    in any order, and the counts of several processes may be added.

    Args:
        classes: names of the K classes, in label order.
        counts: name -> shape of a count; all start as zeros, int64 on the CPU.
    """

    def __init__(self, classes: tuple[str, ...], **counts: tuple[int, ...]):
        self.classes = classes
        self._counts = {name: torch.zeros(shape, dtype=torch.int64) for name, shape in counts.items()}

    def update(self, output: Output, batch: Batch, teacher: Output | None = None) -> None:
        """Count one batch.

        Args:
            output: what the judged network says about the batch; `pred` is [B, K].
            batch: the images and their labels, `target` [B] int64.
            teacher: what the teacher says about the same images, when there is one.
        """
        raise NotImplementedError

    def compute(self) -> dict[str, Figure]:
        """Name -> figure; empty when nothing was counted that the metric could speak about."""
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """The counts, always under the same names and in the same shapes: those of two processes may be added."""
        return {name: count.clone() for name, count in self._counts.items()}

    def merge(self, state: dict[str, Tensor]) -> None:
        """Add the counts that another process or another part of the data came to."""
        self._add(**state)

    def _add(self, **counts: Tensor) -> None:
        for name, count in counts.items():
            self._counts[name] += count.to("cpu", torch.int64)


def decide(pred: Tensor) -> Tensor:
    """The class each row stands for: the greatest logit, or -1 where a logit is not finite.

    A network that says "not a number" has said nothing; argmax would still name a class, which may even be right.

    Args:
        pred: [B, K] logits.

    Returns:
        [B] int64 in -1..K-1.
    """
    return pred.argmax(1).masked_fill(~pred.isfinite().all(1), -1)

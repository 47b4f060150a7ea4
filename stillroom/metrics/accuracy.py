"""Top-1 accuracy: how often the network is right."""

from __future__ import annotations

from stillroom.metrics.measurement import Measurement, proportion
from stillroom.metrics.metric import Metric, decide
from stillroom.types import Batch, Output


class Accuracy(Metric):
    """Share of images whose greatest logit is the label's: |{i : argmax_k pred_ik = target_i}| / N, in 0..1.

    Images without a label (-1) are none of the N.
    """

    def __init__(self, *, classes: tuple[str, ...]):
        super().__init__(classes, right=(), seen=())

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Count the images and those answered rightly."""
        known = batch.target >= 0
        right = (decide(output.pred) == batch.target) & known
        self._add(right=right.sum(), seen=known.sum())

    def compute(self) -> dict[str, Measurement]:
        """`accuracy`, with its interval."""
        right, seen = int(self._counts["right"]), int(self._counts["seen"])
        if not seen:
            return {}
        return {"accuracy": proportion(right, seen, how="share of images whose most probable class is the label")}

"""Top-1 accuracy."""

from __future__ import annotations

from stillroom.metrics.measurement import Measurement, proportion
from stillroom.metrics.metric import Metric, predicted_class
from stillroom.types import Batch, Output


class Accuracy(Metric):
    """Share of labelled images whose largest logit is the label's: |{i : argmax_k pred_ik = target_i}| / N, in 0..1.

    Images without a label (-1) are not counted. A row of logits that is not finite is wrong.
    """

    def __init__(self, *, classes: tuple[str, ...]):
        super().__init__(classes, right=(), images=())

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Count the labelled images and the correct predictions."""
        labelled = batch.target >= 0
        right = (predicted_class(output.pred) == batch.target) & labelled
        self._add_counts(right=right.sum(), images=labelled.sum())

    def compute(self) -> dict[str, Measurement]:
        """`accuracy`, with its interval."""
        right, images = int(self._counts["right"]), int(self._counts["images"])
        if not images:
            return {}
        return {"accuracy": proportion(right, images, how="share of images whose most probable class is the label")}

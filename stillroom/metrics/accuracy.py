"""Top-1 accuracy."""

from __future__ import annotations

from stillroom.metrics._paired import mcnemar
from stillroom.metrics.measurement import Measurement, proportion
from stillroom.metrics.metric import Metric, predicted_class
from stillroom.types import Batch, Output


class Accuracy(Metric):
    """Share of labelled images whose largest logit is the label's: |{i : argmax_k pred_ik = target_i}| / N, in 0..1.

    Images without a label (-1) are not counted. A row of logits that is not finite is wrong.
    """

    def __init__(self, *, classes: tuple[str, ...]):
        super().__init__(classes, rows=("right", "keys"))

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Keep of each labelled image whether its prediction is correct."""
        labelled = batch.target >= 0
        self._add_rows(
            right=(predicted_class(output.pred) == batch.target)[labelled],
            keys=batch.keys[labelled.to(batch.keys.device)],
        )

    def compute(self) -> dict[str, Measurement]:
        """`accuracy`, with its interval."""
        right = self._all_rows("right")
        if right is None or not len(right):
            return {}
        how = "share of images whose most probable class is the label"
        return {"accuracy": proportion(int(right.sum()), len(right), how=how)}

    def paired(self, other: Metric) -> Measurement | None:
        """The difference of the accuracies, by McNemar's test."""
        assert isinstance(other, Accuracy)
        return mcnemar(self._by_key("right"), other._by_key("right")) if self.compute() else None

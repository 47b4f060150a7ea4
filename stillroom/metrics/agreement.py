"""Agreement with a reference: how often both predict the same class, right or wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from stillroom.metrics._paired import mcnemar
from stillroom.metrics.measurement import Measurement, proportion
from stillroom.metrics.metric import Metric, predicted_class, probability_difference
from stillroom.types import Batch, Output, TargetKind


class Agreement(Metric):
    """Share of images for which argmax_k pred_ik = argmax_k reference_ik, in 0..1.

    A row of logits that is not finite agrees with none. Batches without a reference are not counted. The figure also
    holds the differences of the probabilities: the largest over images and classes, and the mean.
    """

    target_kind: ClassVar[TargetKind | None] = None

    def __init__(self, *, classes: tuple[str, ...]):
        super().__init__(classes, rows=("largest", "mean", "same", "keys"))

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Keep of each image whether both agree, and how far apart their probabilities are."""
        if reference is None:
            return
        predicted, expected = predicted_class(output.pred), predicted_class(reference.pred).to(output.pred.device)
        difference = probability_difference(output.pred, reference.pred)
        same = (predicted == expected) & (predicted >= 0)
        self._add_rows(largest=difference.amax(1), mean=difference.mean(1), same=same, keys=batch.keys)

    def compute(self) -> dict[str, Measurement]:
        """`agreement`, with its interval; empty without a reference."""
        same, largest, mean = (self._all_rows(name) for name in ("same", "largest", "mean"))
        if same is None or largest is None or mean is None or not len(same):
            return {}
        how = "share of images for which both predict the same class"
        found = proportion(int(same.sum()), len(same), how=how)
        return {
            "agreement": replace(
                found,
                extra={"max_difference": float(largest.max()), "mean_difference": float(mean.sort().values.mean())},
            )
        }

    def paired(self, other: Metric) -> Measurement | None:
        """The difference of the agreements with one reference, by McNemar's test."""
        assert isinstance(other, Agreement)
        return mcnemar(self._by_key("same"), other._by_key("same")) if self.compute() else None

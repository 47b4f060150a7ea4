"""Recall of every class: how many images of a class the network finds, so that a weak class can't hide in the mean."""

from __future__ import annotations

from stillroom.metrics.measurement import Measurement, wilson
from stillroom.metrics.metric import Metric, decide
from stillroom.types import Batch, Output


class Recall(Metric):
    """For each class c: |{i : target_i = c, argmax_k pred_ik = c}| / |{i : target_i = c}|, in 0..1.

    Images without a label (-1) are of no class.
    """

    def __init__(self, *, classes: tuple[str, ...]):
        super().__init__(classes, right=(len(classes),), seen=(len(classes),))

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Count each class's images and those of them that were found."""
        known = batch.target >= 0
        labels, right = batch.target[known], (decide(output.pred) == batch.target)[known]
        classes = len(self.classes)
        self._add(right=labels[right].bincount(minlength=classes), seen=labels.bincount(minlength=classes))

    def compute(self) -> dict[str, Measurement]:
        """`recall`: class name -> share; a class without images is left out, for 0 of 0 is not a number."""
        right, seen = self._counts["right"].tolist(), self._counts["seen"].tolist()
        rows = [(name, hits, n) for name, hits, n in zip(self.classes, right, seen, strict=True) if n]
        if not rows:
            return {}
        how = "share of a class's images given to that class; 95 % Wilson interval of each class"
        extra = {
            "ci95_by_class": {name: list(wilson(hits, n)) for name, hits, n in rows},
            "n_by_class": {name: n for name, _, n in rows},
        }
        return {
            "recall": Measurement(value={name: hits / n for name, hits, n in rows}, how=how, n=sum(seen), extra=extra)
        }

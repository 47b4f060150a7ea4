"""Recall of each class, so that a class with many errors is not hidden by the mean."""

from __future__ import annotations

from stillroom.metrics.measurement import Measurement, wilson
from stillroom.metrics.metric import Metric, predicted_class
from stillroom.types import Batch, Output


class Recall(Metric):
    """For each class c: |{i : target_i = c, argmax_k pred_ik = c}| / |{i : target_i = c}|, in 0..1.

    Images without a label (-1) are not counted.
    """

    def __init__(self, *, classes: tuple[str, ...]):
        super().__init__(classes, right=(len(classes),), images=(len(classes),))

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Count the images of each class, and the correct predictions among them."""
        labelled = batch.target >= 0
        labels, right = batch.target[labelled], (predicted_class(output.pred) == batch.target)[labelled]
        classes = len(self.classes)
        self._add_counts(right=labels[right].bincount(minlength=classes), images=labels.bincount(minlength=classes))

    def compute(self) -> dict[str, Measurement]:
        """`recall`: class name -> share. Classes without images are left out."""
        right, images = self._counts["right"].tolist(), self._counts["images"].tolist()
        rows = [(name, hits, n) for name, hits, n in zip(self.classes, right, images, strict=True) if n]
        if not rows:
            return {}
        how = "share of a class's images that are predicted as that class; 95 % Wilson interval of each class"
        extra = {
            "ci95_by_class": {name: list(wilson(hits, n)) for name, hits, n in rows},
            "n_by_class": {name: n for name, _, n in rows},
        }
        return {
            "recall": Measurement(value={name: hits / n for name, hits, n in rows}, how=how, n=sum(images), extra=extra)
        }

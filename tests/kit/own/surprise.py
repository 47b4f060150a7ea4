"""A metric of one's own, whole: how surprised a classifier is by the labels."""

from __future__ import annotations

import torch.nn.functional as F

from stillroom.metrics.measurement import Measurement
from stillroom.metrics.metric import Metric


class Surprise(Metric):
    """Mean of -log softmax(pred)[label] over the images that have a label, in nats."""

    def __init__(self, *, classes):
        super().__init__(classes, rows=("nats",))

    def update(self, output, batch, reference=None):
        """Keep the loss of each image."""
        known = batch.target >= 0
        self._add_rows(nats=F.cross_entropy(output.pred[known].double(), batch.target[known], reduction="none"))

    def compute(self):
        """`surprise`."""
        nats = self._all_rows("nats")
        if nats is None or not len(nats):
            return {}
        return {"surprise": Measurement(value=float(nats.mean()), n=len(nats), how="mean of -log p of the label")}

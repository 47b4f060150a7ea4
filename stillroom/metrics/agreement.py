"""Agreement with a reference: how often the two name the same class, right or wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from stillroom.metrics.measurement import Measurement, proportion
from stillroom.metrics.metric import Metric, apart, decide
from stillroom.types import Batch, Output, TargetKind


class Agreement(Metric):
    """Share of images where argmax_k pred_ik = argmax_k reference_ik, in 0..1.

    A row that is not finite agrees with nothing, not even with another of its kind. Batches without a reference are
    not counted. The figure also says how far the probabilities are apart: the largest difference over images and
    classes, and the mean one.
    """

    target_kind: ClassVar[TargetKind | None] = None

    def __init__(self, *, classes: tuple[str, ...]):
        super().__init__(classes, rows=("largest", "mean"), same=(), seen=())

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Count the images that both have seen, and those on which they agree."""
        if reference is None:
            return
        said, expected = decide(output.pred), decide(reference.pred).to(output.pred.device)
        difference = apart(output.pred, reference.pred)
        self._add(same=((said == expected) & (said >= 0)).sum(), seen=said.new_tensor(len(said)))
        self._keep(largest=difference.amax(1), mean=difference.mean(1))

    def compute(self) -> dict[str, Measurement]:
        """`agreement`, with its interval; nothing when nobody was compared with."""
        same, seen = int(self._counts["same"]), int(self._counts["seen"])
        largest, mean = self._kept("largest"), self._kept("mean")
        if not seen or largest is None or mean is None:
            return {}
        found = proportion(same, seen, how="share of images where both name the same class")
        return {
            "agreement": replace(
                found,
                extra={"max_difference": float(largest.max()), "mean_difference": float(mean.sort().values.mean())},
            )
        }

"""Agreement with the teacher: how often the two name the same class, right or wrong."""

from __future__ import annotations

from stillroom.metrics._figure import Figure, proportion
from stillroom.metrics.metric import Metric, decide
from stillroom.types import Batch, Output


class Agreement(Metric):
    """Share of images where argmax_k pred_ik = argmax_k teacher_ik, in 0..1.

    A row that is not finite agrees with nothing, not even with another of its kind. Batches without a teacher are
    not counted.
    """

    def __init__(self, *, classes: tuple[str, ...]):
        super().__init__(classes, same=(), seen=())

    def update(self, output: Output, batch: Batch, teacher: Output | None = None) -> None:
        """Count the images that both have seen, and those on which they agree."""
        if teacher is None:
            return
        said, expected = decide(output.pred), decide(teacher.pred).to(output.pred.device)
        self._add(same=((said == expected) & (said >= 0)).sum(), seen=said.new_tensor(len(said)))

    def compute(self) -> dict[str, Figure]:
        """`agreement`, with its interval; nothing when no teacher spoke."""
        same, seen = int(self._counts["same"]), int(self._counts["seen"])
        if not seen:
            return {}
        how = "share of images where the most probable class is the teacher's"
        return {"agreement": proportion(same, seen, how=how)}

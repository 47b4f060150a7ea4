"""Any task where no image has a label: what is measured is how far the student agrees with its teacher."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar, cast

from torch import Tensor

from stillroom.metrics.measurement import Measurement
from stillroom.metrics.metric import Metric
from stillroom.tasks.task import Task
from stillroom.types import Batch, Output, Terms

FIGURE = "teacher_agreement"
BLIND = "The images had no labels: the figures say how often it agrees with its teacher, not how often either is right."


class WithTeacher(Metric):
    """A task's agreement, taken with the answers that stand as a batch's target, and called `teacher_agreement`.

    Batches whose target is no answer are not counted.

    Args:
        agreement: fresh, see `Task.agreement`; its one figure is called `agreement`.
    """

    def __init__(self, agreement: Metric):
        super().__init__(agreement.classes)
        self._agreement = agreement

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Compare with the target; the reference, which may be somebody else, is left alone."""
        if isinstance(batch.target, Output):
            self._agreement.update(output, batch, batch.target)

    def compute(self) -> dict[str, Measurement]:
        """`teacher_agreement`, with its interval; nothing when nobody was compared with the teacher."""
        found = self._agreement.compute().get("agreement")
        return {FIGURE: replace(found, how=f"{found.how}; compared with the teacher")} if found else {}

    def state(self) -> dict[str, Tensor]:
        """Of the agreement."""
        return self._agreement.state()

    def merge(self, state: dict[str, Tensor]) -> None:
        """Into the agreement."""
        self._agreement.merge(state)


class Agreeing:
    """A task for which nobody knows a label. Whoever judges puts the teacher's answer into the batch as its target.

    Labels charge nothing, so methods alone teach, the untaught baseline is the student as it begins, and a teacher must
    bring its classes along. Whatever is not below is as in the task itself.

    Args:
        task: what the networks are to answer.
    """

    finetune: ClassVar[str] = "none"
    taught: ClassVar[bool] = False

    def __init__(self, task: Task):
        self.task = task
        self.about = replace(
            task.about,
            headline=FIGURE,
            title="Agreement with the teacher",
            truth="teacher",
            by_class="",
            by_class_title="",
            by_class_note="",
            caution=f"{task.about.caution} {BLIND}".strip(),
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "task":  # of a copy that is not yet filled
            raise AttributeError(name)
        return getattr(self.task, name)

    def loss(self, output: Output, batch: Batch) -> Terms:
        """Nothing: there are no labels."""
        return {}

    def score(self, answer: Output, batch: Batch) -> Tensor:
        """How alike the answer is to the teacher's, [B] in 0..1; zeros where there is none."""
        if not isinstance(batch.target, Output):
            return answer.pred.new_zeros(len(answer.pred))
        found: Tensor = self.task.same(answer, batch.target)
        return found

    def metrics(self, classes: tuple[str, ...], gallery: Collection[int] = ()) -> list[Metric]:
        """The task's agreement, with the teacher."""
        return [WithTeacher(self.task.agreement(classes, gallery))]

    def chance(self, classes: int) -> float:
        """0: there is no guessing what a teacher says."""
        return 0.0

    def truth(self, batch: Batch, row: int) -> Mapping[str, Any]:
        """Nothing: nobody knows."""
        return {}


def agreeing(task: Task) -> Task:
    """The task as it is where no image has a label."""
    return cast(Task, Agreeing(task))

"""Any task on images without labels: the figure is the student's agreement with its teacher."""

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
CAUTION = "The images had no labels: the figures show how often it agrees with its teacher, not how often it is right."


class TeacherAgreement(Metric):
    """A task's agreement metric, with the teacher's predictions in `batch.target` as reference: `teacher_agreement`.

    Batches whose target is not an `Output` are skipped.

    Args:
        agreement: a new metric, see `Task.agreement_metric`.
    """

    def __init__(self, agreement: Metric):
        super().__init__(agreement.classes)
        self._agreement = agreement

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Compare `output` with the target. `reference` is not used: it need not be the teacher's."""
        if isinstance(batch.target, Output):
            self._agreement.update(output, batch, batch.target)

    def compute(self) -> dict[str, Measurement]:
        """`teacher_agreement`, with its interval; empty if no batch had the teacher's predictions."""
        found = self._agreement.compute().get("agreement")
        return {FIGURE: replace(found, how=f"{found.how}; compared with the teacher")} if found else {}

    def paired(self, other: Metric) -> Measurement | None:
        """The difference of the agreements."""
        assert isinstance(other, TeacherAgreement)
        return self._agreement.paired(other._agreement)

    def state(self) -> dict[str, Tensor]:
        """The state of the agreement metric."""
        return self._agreement.state()

    def merge(self, state: dict[str, Tensor]) -> None:
        """Merge into the agreement metric."""
        self._agreement.merge(state)


class UnlabelledTask:
    """A task without labels. For evaluation the caller sets the teacher's predictions as `batch.target`.

    There is no label loss, so the student learns from methods alone, the baseline is the student before training, and
    the teacher must come with its own classes. Attributes that are not defined here are those of `task`.

    Args:
        task: the task of both networks.
    """

    finetune: ClassVar[str] = "none"
    has_label_loss: ClassVar[bool] = False

    def __init__(self, task: Task):
        self.task = task
        self.info = replace(
            task.info,
            headline=FIGURE,
            title="Agreement with the teacher",
            truth="teacher",
            by_class="",
            by_class_title="",
            by_class_note="",
            caution=f"{task.info.caution} {CAUTION}".strip(),
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "task":  # a copy under construction has no `task` yet
            raise AttributeError(name)
        return getattr(self.task, name)

    def loss(self, output: Output, batch: Batch) -> Terms:
        """Empty: there are no labels."""
        return {}

    def score_per_image(self, prediction: Output, batch: Batch) -> Tensor:
        """Agreement with the teacher's predictions, [B] in 0..1; zeros if the batch has none."""
        if not isinstance(batch.target, Output):
            return prediction.pred.new_zeros(len(prediction.pred))
        found: Tensor = self.task.agreement_per_image(prediction, batch.target)
        return found

    def metrics(self, classes: tuple[str, ...], gallery_keys: Collection[int] = ()) -> list[Metric]:
        """The task's agreement metric, with the teacher as reference."""
        return [TeacherAgreement(self.task.agreement_metric(classes, gallery_keys))]

    def chance_level(self, classes: int) -> float:
        """0: random guessing has no defined agreement with the teacher."""
        return 0.0

    def drawable_target(self, batch: Batch, row: int) -> Mapping[str, Any]:
        """Empty: there are no labels."""
        return {}


def without_labels(task: Task) -> Task:
    """The task for data in which no image has a label."""
    return cast(Task, UnlabelledTask(task))

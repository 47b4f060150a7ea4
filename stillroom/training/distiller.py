"""Everything that is trained, in one module: one thing to wrap, average, optimise and save."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from torch import Tensor, nn

from stillroom.methods.method import Method
from stillroom.tasks.task import Task
from stillroom.training.loss_weights import LossBalancer, Weight
from stillroom.types import Batch, Output, Terms


class Distiller(nn.Module):
    """The student, and what its methods learn beside it. The teacher is not in here.

    Args:
        student: pixels -> Output.
        task: charges for labels.
        methods: label -> method; a label names the method's terms and its weight.
        weights: label -> weight, "task" among them; a number stays what it is over the run.
        balanced: whether weights are ratios of gradients' lengths, see `LossBalancer`.
    """

    def __init__(
        self,
        student: nn.Module,
        task: Task,
        methods: Mapping[str, Method],
        weights: Mapping[str, float | Weight],
        *,
        balanced: bool = False,
    ):
        super().__init__()
        self.student, self.task, self.methods = student, task, nn.ModuleDict(methods)
        plans = {label: w if isinstance(w, Weight) else Weight(w) for label, w in weights.items()}
        labels = ["task", *methods]
        self.weighting = LossBalancer({label: plans[label] for label in labels}, balanced=balanced)
        self.student_taps = _together(method.student_taps for method in methods.values())
        self.teacher_taps = _together(method.teacher_taps for method in methods.values())

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Of the methods that have one, in their order."""
        found = (getattr(method, "temperature", None) for method in self.methods.values())
        return tuple(t for t in found if isinstance(t, float))

    def forward(self, batch: Batch, teacher: Output | None, progress: float) -> Terms:
        """Every raw term, named `label/term`."""
        seen = self.student(batch.images, self.student_taps)
        terms = {f"task/{name}": value for name, value in self.task.loss(seen, batch).items()}
        for label, module in self.methods.items():
            method = cast(Method, module)
            charged = method.loss(method.project(seen), cast(Output, teacher), batch, progress)
            terms |= {f"{label}/{name}": value for name, value in charged.items()}
        return terms

    def weights(self, progress: float) -> dict[str, float]:
        """Label -> what its raw terms are multiplied by, `progress` of the run being done."""
        return self.weighting.at(progress)

    def total(self, terms: Terms, progress: float, *, measure: bool = False) -> Tensor:
        """What is minimised: the sum of weight x term. `measure` the gradients first, where weights are balanced."""
        if measure:
            self.weighting.measure(terms, [p for p in self.student.parameters() if p.requires_grad])
        return self.weighting.total(terms, progress)


def _together(taps: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in taps for name in names))

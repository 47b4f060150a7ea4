"""A task with further metrics than its own: those that a recipe names, `metrics = ["package.module:Name"]`."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, cast

from torch import Tensor

from stillroom.metrics._errors import FigureNameTaken
from stillroom.metrics.measurement import Measurement
from stillroom.metrics.metric import RESERVED, Metric
from stillroom.tasks.task import Task
from stillroom.types import Batch, Output


class Added(Metric):
    """A metric whose figures carry the name by which the recipe added it: `metric` in `metrics.json`.

    Args:
        name: as the recipe has it.
        metric: fresh.
    """

    def __init__(self, name: str, metric: Metric):
        super().__init__(metric.classes)
        self.name, self._metric = name, metric

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """As the metric does."""
        self._metric.update(output, batch, reference)

    def compute(self) -> dict[str, Measurement]:
        """Its figures.

        Raises:
            FigureNameTaken: SR-X711 a figure is called as something else in a row of `metrics.json`.
        """
        figures = self._metric.compute()
        if taken := sorted(RESERVED & figures.keys()):
            raise FigureNameTaken(metric=self.name, figure=taken[0])
        return {name: replace(found, extra=found.extra | {"metric": self.name}) for name, found in figures.items()}

    def state(self) -> dict[str, Tensor]:
        """Of the metric."""
        return self._metric.state()

    def merge(self, state: dict[str, Tensor]) -> None:
        """Into the metric."""
        self._metric.merge(state)


class WithMetrics:
    """A task and further metrics. Attributes that are not defined here are those of `task`.

    Args:
        task: the task.
        kinds: name -> class; one that the task has among its own is not taken twice.
    """

    def __init__(self, task: Task, kinds: Mapping[str, type[Metric]]):
        self.task, self.kinds = task, dict(kinds)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "task":  # a copy under construction has no `task` yet
            raise AttributeError(name)
        return getattr(self.task, name)

    def metrics(self, classes: tuple[str, ...], gallery: Collection[int] = ()) -> list[Metric]:
        """The task's own, the one with the headline figure first, then the further ones."""
        own = self.task.metrics(classes, gallery)
        known = {type(one) for one in (*own, self.task.agreement(classes, gallery))}
        more = {name: kind for name, kind in self.kinds.items() if kind not in known}
        return own + [Added(name, _fresh(kind, classes, gallery)) for name, kind in more.items()]


def with_metrics(task: Task, kinds: Mapping[str, type[Metric]]) -> Task:
    """The task, with further metrics where there are any."""
    return cast(Task, WithMetrics(task, kinds)) if kinds else task


def _fresh(kind: type[Metric], classes: tuple[str, ...], gallery: Collection[int]) -> Metric:
    """A metric that takes classes alone, or also the keys of images that others are compared with."""
    more = {"gallery": gallery} if "gallery" in inspect.signature(kind).parameters else {}
    made: Any = kind
    found: Metric = made(classes=classes, **more)
    return found

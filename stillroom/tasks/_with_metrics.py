"""A task with additional metrics, named in a recipe: `metrics = ["package.module:Name"]`."""

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


class NamedMetric(Metric):
    """A metric whose figures record the name under which the recipe added it, as `metric` in `metrics.json`.

    Args:
        name: as in the recipe.
        metric: a new metric.
    """

    def __init__(self, name: str, metric: Metric):
        super().__init__(metric.classes)
        self.name, self._metric = name, metric

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Update the metric."""
        self._metric.update(output, batch, reference)

    def compute(self) -> dict[str, Measurement]:
        """The metric's figures.

        Raises:
            FigureNameTaken: SR-X711 a figure has the name of another entry of `metrics.json`.
        """
        figures = self._metric.compute()
        if taken := sorted(RESERVED & figures.keys()):
            raise FigureNameTaken(metric=self.name, figure=taken[0])
        return {name: replace(found, extra=found.extra | {"metric": self.name}) for name, found in figures.items()}

    def state(self) -> dict[str, Tensor]:
        """The metric's state."""
        return self._metric.state()

    def merge(self, state: dict[str, Tensor]) -> None:
        """Merge into the metric."""
        self._metric.merge(state)


class WithMetrics:
    """A task with additional metrics. Attributes that are not defined here are those of `task`.

    Args:
        task: the task.
        kinds: name -> class. Metrics that the task already has are not added again.
    """

    def __init__(self, task: Task, kinds: Mapping[str, type[Metric]]):
        self.task, self.kinds = task, dict(kinds)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "task":  # a copy under construction has no `task` yet
            raise AttributeError(name)
        return getattr(self.task, name)

    def metrics(self, classes: tuple[str, ...], gallery_keys: Collection[int] = ()) -> list[Metric]:
        """The task's own metrics, the one with the headline figure first, then the additional ones."""
        own = self.task.metrics(classes, gallery_keys)
        known = {type(one) for one in (*own, self.task.agreement_metric(classes, gallery_keys))}
        more = {name: kind for name, kind in self.kinds.items() if kind not in known}
        return own + [NamedMetric(name, _create(kind, classes, gallery_keys)) for name, kind in more.items()]


def with_metrics(task: Task, kinds: Mapping[str, type[Metric]]) -> Task:
    """The task with additional metrics, if there are any."""
    return cast(Task, WithMetrics(task, kinds)) if kinds else task


def _create(kind: type[Metric], classes: tuple[str, ...], gallery_keys: Collection[int]) -> Metric:
    """A metric with the arguments that it takes: the classes, and the gallery keys where it has that parameter."""
    more = {"gallery_keys": gallery_keys} if "gallery_keys" in inspect.signature(kind).parameters else {}
    made: Any = kind
    found: Metric = made(classes=classes, **more)
    return found

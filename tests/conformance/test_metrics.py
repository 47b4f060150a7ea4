"""Every file of `metrics/`: a new metric is tested here without anybody adding it."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from stillroom import plugins
from stillroom.metrics.metric import Metric
from stillroom.types import Batch, Output

CLASSES = ("ant", "bee", "cat")
NAMES = plugins.choices("metrics")
LABELS = torch.tensor([0, 1, 2, 2, 1, 0])
PRED = torch.eye(3)[torch.tensor([0, 1, 2, 1, 1, 2])] * 5
TEACHER = torch.eye(3)[torch.tensor([0, 1, 2, 2, 0, 2])] * 3


@pytest.fixture(params=NAMES)
def metric(request: Any) -> Metric:
    return plugins.pick("metrics", request.param)(classes=CLASSES)


def update(metric: Metric, pred: Tensor = PRED, teacher: Tensor | None = TEACHER) -> None:
    batch = Batch(images=torch.zeros(6, 3, 2, 2), target=LABELS, keys=torch.arange(6))
    metric.update(Output(pred=pred), batch, None if teacher is None else Output(pred=teacher))


def test_the_folder_is_the_registry() -> None:
    assert {"accuracy", "agreement", "recall"} <= set(NAMES)


def test_it_is_a_metric_and_says_what_it_computes(metric: Metric) -> None:
    assert isinstance(metric, Metric)
    assert metric.classes is CLASSES
    assert importlib.import_module(type(metric).__module__).__doc__
    assert type(metric).__doc__


def test_nothing_seen_says_nothing(metric: Metric) -> None:
    assert metric.compute() == {}
    assert all(count.sum() == 0 for count in metric.state().values())


def test_figures_can_be_written(metric: Metric) -> None:
    update(metric)
    figures = metric.compute()
    assert figures
    for figure in figures.values():
        written = json.loads(json.dumps(figure.as_dict(), allow_nan=False))
        assert written["how"] and written["n"] == 6


def test_the_state_keeps_its_names_and_shapes(metric: Metric) -> None:
    before = {name: (count.shape, count.dtype) for name, count in metric.state().items()}
    update(metric)
    assert {name: (count.shape, count.dtype) for name, count in metric.state().items()} == before
    assert all(dtype == torch.int64 for _, dtype in before.values())


def test_the_state_is_a_copy(metric: Metric) -> None:
    update(metric)
    before = metric.compute()
    for count in metric.state().values():
        count.zero_()
    assert metric.compute() == before


def test_it_leaves_what_it_judges_alone(metric: Metric) -> None:
    pred, teacher = PRED.clone(), TEACHER.clone()
    update(metric, pred, teacher)
    assert torch.equal(pred, PRED) and torch.equal(teacher, TEACHER)


def test_no_teacher_is_no_error(metric: Metric) -> None:
    update(metric, teacher=None)
    metric.compute()


def test_what_is_not_a_number_is_never_right(metric: Metric) -> None:
    update(metric, torch.full_like(PRED, float("nan")), torch.full_like(PRED, float("nan")))
    for figure in metric.compute().values():
        assert not any(figure.value.values() if isinstance(figure.value, dict) else [figure.value])

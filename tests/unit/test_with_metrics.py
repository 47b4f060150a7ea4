"""Further metrics beside a task's own: what is added, what is not taken twice, and what is refused."""

from __future__ import annotations

import pytest
import torch
from kit.answers import CLASSES, drawn

from stillroom.config import recipe
from stillroom.data.dataset import load_dataset
from stillroom.data.sources.digits import Digits
from stillroom.errors import StillroomError
from stillroom.evaluation.evaluate import evaluate
from stillroom.metrics.accuracy import Accuracy
from stillroom.metrics.agreement import Agreement
from stillroom.metrics.measurement import Measurement
from stillroom.metrics.metric import RESERVED, Metric
from stillroom.metrics.recall import Recall
from stillroom.stages.build import build_task
from stillroom.tasks._with_metrics import WithMetrics, with_metrics
from stillroom.tasks.classification import Classification
from stillroom.types import Batch, Output


class Images(Metric):
    """How many images there are; under any name."""

    figure = "images"

    def __init__(self, *, classes):
        super().__init__(classes, seen=())

    def update(self, output, batch, reference=None):
        self._add_counts(seen=torch.tensor(len(batch)))

    def compute(self):
        return {self.figure: Measurement(value=float(self._counts["seen"]), n=1, how="counted")}


class Reserved(Images):
    figure = "latency_ms"


class Twice(Images):
    figure = "accuracy"


class OfMasks(Images):
    target_kind = "masks"


class Boxes(Images):
    output_kind = "boxes"


def measured(*kinds):
    """The figures of one network on twelve images."""
    output, batch, _ = drawn("classes", 12, 0)
    task = with_metrics(Classification(), {kind.__name__: kind for kind in kinds})
    return evaluate({"one": lambda images: Output(pred=output.pred)}, [batch], task, CLASSES).figures["one"]


def test_a_further_figure_stands_behind_the_tasks_own_and_says_where_it_is_from():
    figures = measured(Images)
    assert list(figures) == ["accuracy", "recall", "images"]
    assert figures["images"].value == 12 and figures["images"].extra["metric"] == "Images"
    assert measured() == {name: figure for name, figure in figures.items() if name != "images"}


def test_the_tasks_own_are_not_taken_twice():
    task = with_metrics(Classification(), {"a": Accuracy, "r": Recall, "g": Agreement, "i": Images})
    assert [type(one).__name__ for one in task.metrics(CLASSES)] == ["Accuracy", "Recall", "NamedMetric"]
    assert with_metrics(task, {}) is task


def test_everything_else_is_the_tasks():
    task = WithMetrics(Classification(smoothing=0.1), {"i": Images})
    assert (task.smoothing, task.output_kind, task.tolerance) == (0.1, "classes", 0.01)
    batch = Batch(images=torch.zeros(2, 1, 2, 2), target=torch.tensor([0, 1]), keys=torch.arange(2))
    assert task.loss(Output(pred=torch.zeros(2, 4)), batch)["ce"] > 0


def test_states_of_several_processes_add_up():
    _, batch, _ = drawn("classes", 12, 0)
    output, whole, part = (
        drawn("classes", 12, 0)[0],
        *(with_metrics(Classification(), {"i": Images}).metrics(CLASSES)[-1] for _ in range(2)),
    )
    whole.update(output, batch)
    part.update(output, batch)
    whole.merge(part.state())
    assert whole.compute()["images"].value == 24


@pytest.mark.parametrize(("kind", "figure"), [(Reserved, "latency_ms"), (Twice, "accuracy")])
def test_a_name_that_is_taken_is_refused(kind, figure):
    with pytest.raises(StillroomError) as caught:
        measured(kind)
    assert caught.value.code == "SR-X711" and figure in caught.value.what and kind.__name__ in caught.value.what
    assert {"verified", "bytes", "target"} < RESERVED


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (Boxes, "measures boxes, but the predictions of classification are classes"),
        (OfMasks, "compares with masks, but classification has labels"),
    ],
)
def test_what_does_not_fit_the_task_is_a_problem_of_the_recipe(kind, problem):
    given = {"data": "digits", "teacher": "resnet8", "student": "resnet8"}
    with pytest.raises(StillroomError) as caught:
        recipe.check(given | {"metrics": [f"{__name__}:{kind.__name__}"]})
    assert caught.value.code == "SR-C400" and f"metrics[0]: '{__name__}:{kind.__name__}' {problem}" in str(caught.value)


def test_metrics_of_a_recipe_are_names():
    given = {"data": "digits", "teacher": "resnet8", "student": "resnet8"}
    assert recipe.check(given | {"metrics": ["recall"]}).metrics == ("recall",)
    assert recipe.check(given).metrics == ()
    with pytest.raises(StillroomError, match="must be"):
        recipe.check(given | {"metrics": [1]})


@pytest.mark.parametrize(("name", "code"), [(f"{__name__}:CLASSES", "SR-C442"), (f"{__name__}:Images", "SR-D143")])
def test_what_can_not_be_computed_on_the_data_is_refused_when_the_task_is_built(name, code, monkeypatch):
    data = load_dataset(Digits())
    section = recipe.check({"data": "digits", "teacher": "resnet8", "student": "resnet8"}).task
    if code == "SR-D143":
        assert build_task(section, data, [name]).metrics(CLASSES)
        monkeypatch.setattr(type(data), "labelled", False)
    with pytest.raises(StillroomError) as caught:
        build_task(section, data, [name])
    assert caught.value.code == code

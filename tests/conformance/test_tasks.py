"""Every file of `tasks/`: what the line, the gate and the report rely on, whatever the task."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from kit.targets import drawn_pred, drawn_target, known

from stillroom.config import plugins
from stillroom.tasks.task import Task
from stillroom.types import Batch, Output

CLASSES = ("ant", "bee", "cat")
SIDE = 16
PRED = {
    "classes": lambda images, seed: torch.randn(images, 3),
    "pixels": lambda images, seed: torch.randn(images, 3, SIDE, SIDE),
    "boxes": lambda images, seed: drawn_pred(images, 40, 3, seed=seed),
    "vector": lambda images, seed: torch.randn(images, 5),
}
TARGET = {
    "labels": lambda images: torch.arange(images) % 3,
    "masks": lambda images: torch.randint(-1, 3, (images, SIDE, SIDE)),
    "boxes": lambda images: drawn_target(images, 3, 3),
}
NOTHING = {
    "labels": lambda images: torch.full((images,), -1),
    "masks": lambda images: torch.full((images, SIDE, SIDE), -1),
    "boxes": lambda images: known(*([] for _ in range(images))),
}


@pytest.fixture(params=plugins.choices("tasks"))
def task(request):
    return plugins.pick("tasks", request.param)()


def output(task, images=6, seed=0):
    torch.manual_seed(seed)
    return Output(pred=PRED[task.output_kind](images, seed))


def batch(task, images=6, targets=TARGET):
    torch.manual_seed(1)
    return Batch(
        images=torch.rand(images, 3, SIDE, SIDE), target=targets[task.needs](images), keys=torch.arange(images)
    )


def answer(task, images=6, seed=0):
    return task.answer(output(task, images, seed), torch.rand(images, 3, SIDE, SIDE))


def test_it_has_all_that_a_task_has(task):
    wanted = {name for name in inspect.get_annotations(Task)} | {n for n in vars(Task) if not n.startswith("_")}
    assert not {name for name in wanted if not hasattr(task, name)}
    assert task.gates.keys() >= {32, 8} and all(0 < gate <= 1 for gate in task.gates.values())
    assert type(task).__doc__ and asdict(task.about)["title"]
    assert task.about.use and "{" not in task.about.use.format(classes=7)


def test_labels_teach_or_say_that_they_do_not(task):
    said = output(task)
    pred = said.pred.clone().requires_grad_()
    terms = task.loss(Output(pred=pred), batch(task))
    assert bool(terms) == task.taught
    if terms:
        total = torch.stack(list(terms.values())).sum()
        total.backward()
        assert total.ndim == 0 and total.isfinite() and pred.grad.isfinite().all() and pred.grad.abs().sum() > 0


def test_images_of_which_nothing_is_known_charge_something_finite(task):
    if not task.taught:
        pytest.skip("nothing is charged")
    pred = output(task).pred.requires_grad_()
    terms = task.loss(Output(pred=pred), batch(task, targets=NOTHING))
    torch.stack(list(terms.values())).sum().backward()
    assert all(value.isfinite() for value in terms.values()) and pred.grad.isfinite().all()
    empty = batch(task, targets=NOTHING)
    metric, *_ = task.metrics(CLASSES)
    metric.update(answer(task), empty)
    assert metric.value() == metric.value()  # not NaN
    assert task.score(answer(task), empty).isfinite().all()


def test_a_loss_is_the_mean_of_what_the_images_charge_or_close_to_it(task):
    """Twice the same images charge what they charge once: nothing is summed over the batch."""
    if not task.taught:
        pytest.skip("nothing is charged")
    one, said = batch(task), output(task)
    once = task.loss(said, one)
    again = one.map(lambda tensor: torch.cat([tensor, tensor]))
    twice = task.loss(Output(pred=torch.cat([said.pred, said.pred])), again)
    for name, value in once.items():
        assert twice[name] == pytest.approx(value.item(), rel=1e-4), name


def test_the_headline_figure_is_computed_and_leads(task):
    first, *_ = task.metrics(CLASSES)
    first.update(answer(task), batch(task))
    figures = first.compute()
    assert next(iter(figures)) == task.about.headline
    assert 0 <= figures[task.about.headline].value <= 1
    assert first.value() == figures[task.about.headline].value
    names = {name for metric in task.metrics(CLASSES) for name in _computed(metric, task)}
    assert not task.about.by_class or task.about.by_class in names


def _computed(metric, task):
    metric.update(answer(task), batch(task))
    return metric.compute()


def test_an_answer_agrees_with_itself_and_less_with_another(task):
    mine, other = answer(task), answer(task, seed=5)
    assert torch.equal(task.same(mine, mine).cpu(), torch.ones(6))
    assert task.same(mine, other).mean() < 0.9
    figures = []
    for reference in (mine, other):
        metric = task.agreement(CLASSES)
        metric.update(mine, batch(task), reference)
        figures.append(metric.compute()["agreement"].value)
    assert figures[0] == 1 and 0 <= figures[1] < 0.9


def test_nobody_to_agree_with_is_no_error(task):
    metric = task.agreement(CLASSES)
    metric.update(answer(task), batch(task))
    assert metric.compute() == {}


def test_a_score_is_a_share_an_image(task):
    found = task.score(answer(task), batch(task))
    assert found.shape == (6,) and (found >= 0).all() and (found <= 1).all()


def test_what_is_kept_and_drawn_is_an_image_s_own(task):
    mine, one = answer(task), batch(task)
    assert len(task.decode(mine)) == 6
    for row in (0, 5):
        for sketch in (task.sketch(mine, row), task.truth(one, row)):
            drawn = {k: v.tolist() if isinstance(v, (np.ndarray, torch.Tensor)) else v for k, v in sketch.items()}
            assert set(drawn) <= {"logits", "boxes", "mask", "vector", "class"}
            json.dumps(drawn, allow_nan=False)


def test_one_image_is_answered_as_in_company(task):
    said = output(task)
    whole = task.answer(said, torch.rand(6, 3, SIDE, SIDE)).pred
    alone = task.answer(Output(pred=said.pred[2:3]), torch.rand(1, 3, SIDE, SIDE)).pred
    torch.testing.assert_close(whole[2:3], alone, atol=1e-5, rtol=1e-5)


def test_what_is_not_a_number_is_no_answer(task):
    pred = torch.full_like(output(task).pred, float("nan"))
    said = task.answer(Output(pred=pred), torch.rand(6, 3, SIDE, SIDE))
    metric, *_ = task.metrics(CLASSES)
    metric.update(said, batch(task))
    assert metric.value() == 0

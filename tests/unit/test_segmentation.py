"""The segmentation task: what labels charge, what an answer is, how it is drawn, and that a small network learns it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit.features import drawn
from kit.scenes import MASK_CLASSES, VOID, scenes

from stillroom.models import create_model
from stillroom.tasks.segmentation import Segmentation, dice_loss, pixel_loss
from stillroom.types import Batch, Output

seeds = st.integers(0, 2**31)


def batch(true):
    return Batch(images=torch.zeros(len(true), 1, *true.shape[1:]), target=true, keys=torch.arange(len(true)))


def masks(seed, images=2, classes=3):
    return torch.randint(-1, classes, (images, 4, 5), generator=torch.Generator().manual_seed(seed))


@given(seeds)
def test_void_teaches_nothing_and_pixels_weigh_alike(seed):
    true, pred = masks(seed), drawn(2, 3, 4, 5, seed=seed, dtype=torch.float32).requires_grad_()
    for loss in (pixel_loss, dice_loss):
        (grad,) = torch.autograd.grad(loss(pred, true), pred)
        assert grad.movedim(1, -1)[true < 0].abs().max() == 0 < grad.abs().max()
    both = pixel_loss(torch.cat((pred, pred)), torch.cat((true, torch.full_like(true, -1))))
    assert both.item() == pytest.approx(pixel_loss(pred, true).item(), rel=1e-5)


@given(seeds)
def test_sure_and_right_costs_nothing_and_guessing_costs_its_entropy(seed):
    true = masks(seed)
    sure = torch.nn.functional.one_hot(true.clamp_min(0), 3).movedim(-1, 1) * 100.0
    assert pixel_loss(sure, true).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(sure, true).item() == pytest.approx(0, abs=1e-6)
    assert pixel_loss(torch.zeros(2, 3, 4, 5), true).item() == pytest.approx(math.log(3), rel=1e-5)
    assert 0 < dice_loss(torch.zeros(2, 3, 4, 5), true) < 1


def test_a_batch_of_void_is_finite_with_a_gradient_of_zeros():
    pred = drawn(2, 3, 4, 5, dtype=torch.float32).requires_grad_()
    terms = Segmentation(dice=1.0).loss(Output(pred=pred), batch(torch.full((2, 4, 5), -1)))
    assert {name: value.item() for name, value in terms.items()} == {"ce": 0.0, "dice": 0.0}
    sum(terms.values()).backward()
    assert pred.grad.abs().max() == 0


def test_dice_is_weighted_and_absent_unless_asked_for():
    pred, true = drawn(2, 3, 4, 5), masks(1)
    assert set(Segmentation().loss(Output(pred=pred), batch(true))) == {"ce"}
    found = Segmentation(dice=0.5).loss(Output(pred=pred), batch(true))["dice"]
    assert found.item() == pytest.approx(0.5 * dice_loss(pred, true).item())
    with pytest.raises(ValueError, match="dice must be at least 0, got -1"):
        Segmentation(dice=-1.0)


def test_half_precision_is_finite():
    pred = (drawn(2, 3, 4, 5) * 1e4).half()
    assert all(v.isfinite() for v in Segmentation(dice=1.0).loss(Output(pred=pred), batch(masks(1))).values())


def test_an_answer_is_scored_compared_and_drawn():
    task, true = Segmentation(), torch.tensor([[[0, 1], [2, -1]], [[-1, -1], [-1, -1]]])
    right = torch.nn.functional.one_hot(true.clamp_min(0), 3).movedim(-1, 1).float()
    wrong = right.clone()
    wrong[0, :, 0, 0] = torch.tensor([0.0, 1.0, 0.0])  # 1 where 0 is true
    nothing = torch.full_like(right, float("nan"))
    assert task.answer(Output(pred=right), batch(true).images).pred is right
    assert task.score(Output(pred=right), batch(true)).tolist() == [1, 1]
    assert task.score(Output(pred=wrong), batch(true)).tolist() == pytest.approx([(0 + 1 / 2 + 1) / 3, 1])
    assert task.score(Output(pred=nothing), batch(true)).tolist() == [0, 1]
    assert task.same(Output(pred=right), Output(pred=wrong)).tolist() == [0.75, 1]
    assert task.same(Output(pred=nothing), Output(pred=nothing)).tolist() == [0, 0]
    assert task.decode(Output(pred=wrong)).tolist()[0] == [[1, 1], [2, 0]]
    assert task.decode(Output(pred=nothing)).unique().tolist() == [255]
    assert task.decode(Output(pred=right)).dtype == torch.uint8
    assert task.decode(Output(pred=torch.zeros(1, 300, 2, 2))).dtype == torch.int16
    for drawing, wanted in ((task.sketch(Output(pred=wrong), 0), [[1, 1], [2, 0]]), (task.truth(batch(true), 0), None)):
        assert drawing["mask"].dtype == np.uint8
        assert drawing["mask"].tolist() == (wanted or [[0, 1], [2, VOID]])


def test_what_is_measured_leads_with_what_the_task_is_known_by():
    task, pred, true = Segmentation(), drawn(4, 3, 8, 8), torch.randint(0, 3, (4, 8, 8))
    figures = {}
    for metric in task.metrics(("a", "b", "c")):
        metric.update(Output(pred=pred), batch(true))
        figures |= metric.compute()
    assert next(iter(figures)) == task.about.headline and task.about.by_class in figures
    assert set(figures) == {"miou", "iou", "pixel_accuracy", "boundary_f"}
    metric = task.agreement(("a", "b", "c"))
    metric.update(Output(pred=pred), batch(true), Output(pred=pred))
    assert metric.compute()["agreement"].value == 1
    assert task.chance(3) == 0.2


def test_a_small_network_learns_eight_scenes():
    shown = scenes(8)
    images = torch.from_numpy(np.stack([scene.image for scene in shown])).float()[:, None] / 255
    true = torch.from_numpy(np.stack([scene.mask for scene in shown])).long()
    seen = Batch(images=images, target=torch.where(true == VOID, -1, true), keys=torch.arange(8))
    torch.manual_seed(0)
    network = create_model(
        "timm/test_resnet", classes=len(MASK_CLASSES), channels=1, size=64, output_kind="pixels", maps=4
    )
    task, optimiser = Segmentation(dice=0.5), torch.optim.AdamW(network.parameters(), lr=3e-3)
    (metric, *_), before = task.metrics(MASK_CLASSES), None
    for _ in range(60):
        loss = sum(task.loss(network(images), seen).values())
        before = before or loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    metric.update(network.eval()(images), seen)
    assert loss.item() < before / 5 and metric.value() > 0.8

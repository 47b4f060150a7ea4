"""Boxes: values that can be checked by hand, and the cases where there is nothing to compare."""

from __future__ import annotations

import pytest
import torch
from kit.targets import drawn_pred, drawn_target, known

from stillroom.ops.assignment import assign_boxes
from stillroom.ops.boxes import clip, giou, in_pixels, iou
from stillroom.ops.detection_loss import detection_loss
from stillroom.ops.nms import nms

BOX = torch.tensor([0.2, 0.2, 0.6, 0.6])


def say(*places, classes=2, logit=-4.0):
    """[1, A, 4 + K]: places as (left, top, right, bottom, class, logit of that class)."""
    pred = torch.full((1, len(places), 4 + classes), logit)
    for a, (*sides, label, own) in enumerate(places):
        pred[0, a, :4], pred[0, a, 4 + label] = torch.tensor(sides), own
    return pred


def test_overlap_by_hand():
    half = torch.tensor([0.4, 0.2, 0.8, 0.6])  # a half in common: 0.08 of 0.24
    assert iou(BOX, half).item() == pytest.approx(1 / 3)
    assert giou(BOX, half).item() == pytest.approx(1 / 3)
    corner = torch.tensor([0.6, 0.6, 1.0, 1.0])  # touching at a corner: 0.32 of 0.64 is empty
    assert giou(BOX, corner).item() == pytest.approx(-0.5)


@pytest.mark.parametrize("degenerate", [[0.3, 0.3, 0.3, 0.3], [0.5, 0.3, 0.3, 0.5], [0.4, 0.1, 0.4, 0.9]])
def test_a_box_without_area_has_finite_overlaps_and_gradients(degenerate):
    for other in (BOX, torch.tensor(degenerate)):
        said = torch.tensor(degenerate, requires_grad=True)
        assert iou(said, other).item() == 0
        giou(said, other).backward()
        assert said.grad.isfinite().all()


def test_in_pixels_and_clipped():
    assert in_pixels(BOX, 100, 50).tolist() == pytest.approx([10, 20, 30, 60])
    assert clip(torch.tensor([-0.1, 0.5, 1.2, 0.7])).tolist() == pytest.approx([0, 0.5, 1, 0.7])


def test_suppression_by_hand():
    boxes = torch.tensor([[0.0, 0, 0.4, 1], [0.1, 0, 0.5, 1], [0.2, 0, 0.6, 1], [0.0, 0, 0.4, 1]])[None]
    classes = torch.tensor([[0, 0, 0, 1]])
    # The second (0.6 with the first) falls, and so doesn't take the third with it; the fourth is of another class.
    assert nms(boxes, classes, 0.5).tolist() == [[True, False, True, True]]
    assert nms(boxes, classes, 0.3).tolist() == [[True, False, False, True]]
    assert nms(boxes, classes, 1.0).all()


def test_a_chain_longer_than_the_rounds_is_wrong_only_behind_them():
    left = torch.arange(12) * 0.02
    chain = torch.stack((left, torch.zeros(12), left + 0.1, torch.ones(12)), -1)[None]  # neighbours overlap by 2/3
    assert nms(chain, torch.zeros(1, 12), 0.6, rounds=12).tolist() == [[True, False] * 6]
    assert nms(chain, torch.zeros(1, 12), 0.6, rounds=4)[0, :4].tolist() == [True, False, True, False]


def test_the_best_place_gets_its_overlap_as_quality():
    pred = say((0.2, 0.2, 0.6, 0.5, 1, 0.0), (0.0, 0.0, 0.1, 0.1, 1, 0.0))
    found = assign_boxes(pred, known([(0.2, 0.2, 0.6, 0.6, 1)]))
    assert found.box.tolist() == [[0, 0]]  # both, for there are no 13; the second is only near
    assert found.quality[0, 0].item() == pytest.approx(0.75)
    assert found.quality[0, 1].item() < 1e-4


def test_a_place_goes_to_the_box_it_overlaps_most():
    pred = say((0.2, 0.2, 0.6, 0.6, 0, 0.0))
    found = assign_boxes(pred, known([(0.1, 0.1, 0.7, 0.7, 0), (0.2, 0.2, 0.6, 0.55, 0)]))
    assert found.box.tolist() == [[1]]


def test_equals_are_told_apart_by_distance():
    """A new detector's points overlap nothing: the thirteen nearest of those inside learn."""
    x = torch.linspace(0.21, 0.59, 21)
    pred = torch.cat((torch.stack((x, x, x, x), -1), torch.full((21, 1), -4.6)), -1)[None]
    found = assign_boxes(pred, known([(0.2, 0.2, 0.6, 0.6, 0)]))
    near = (x - 0.4).abs().argsort()[:13].sort().values
    assert (found.box[0] >= 0).nonzero().flatten().tolist() == near.tolist()
    assert found.quality[0, near].tolist() == pytest.approx([0.1] * 13, rel=1e-4)


def test_one_place_for_each_box_even_where_another_fits_both_best():
    pred = say((0.2, 0.2, 0.6, 0.6, 0, 3.0), (0.2, 0.2, 0.5, 0.6, 0, 3.0), (0.0, 0.0, 0.1, 0.1, 0, 3.0))
    found = assign_boxes(pred, known([(0.2, 0.2, 0.6, 0.6, 0), (0.2, 0.2, 0.58, 0.6, 0)]), "one")
    assert sorted(found.box[0, :2].tolist()) == [0, 1] and found.box[0, 2] == -1


def test_nothing_is_charged_for_perfect_answers():
    pred = say((0.2, 0.2, 0.6, 0.6, 1, 40.0), (0.5, 0.5, 0.9, 0.8, 0, 40.0), logit=-40.0)
    terms = detection_loss(pred, known([(0.2, 0.2, 0.6, 0.6, 1), (0.5, 0.5, 0.9, 0.8, 0)]), assign="one")
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {"score": 0, "box": 0, "corners": 0}, abs=1e-5
    )


@pytest.mark.parametrize("how", ["many", "one"])
@pytest.mark.parametrize("target", [known([], []), known([(0.1, 0.1, 0.3, 0.3, 0)], [], unknown=[0])])
def test_without_a_box_only_the_background_is_charged(how, target):
    pred = drawn_pred(2, 9, 2).requires_grad_()
    terms = detection_loss(pred, target, assign=how)
    assert terms["score"] > 0 and terms["box"] == 0
    sum(terms.values()).backward()
    assert pred.grad.isfinite().all() and (pred.grad[1, :, 4:] > 0).all() and not pred.grad[..., :4].any()


def test_images_nobody_looked_at_charge_nothing():
    pred = drawn_pred(2, 9, 2).requires_grad_()
    target = known([(0.1, 0.1, 0.5, 0.5, 0)], [(0.1, 0.1, 0.5, 0.5, 0)], unknown=[0])
    alone = detection_loss(pred[1:], {name: value[1:] for name, value in target.items()})
    terms = detection_loss(pred, target)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {name: term.item() for name, term in alone.items()}
    )
    sum(terms.values()).backward()
    assert not pred.grad[0].any() and pred.grad[1].any()


def test_in_a_crowd_its_class_is_not_background():
    inside, outside = (0.3, 0.3, 0.4, 0.4), (0.8, 0.8, 0.9, 0.9)
    pred = say((*inside, 0, 1.0), (*outside, 0, 1.0)).requires_grad_()
    target = known([(0.2, 0.2, 0.6, 0.6, 0)], crowd=[(0, 0)])
    assert (assign_boxes(pred, target).box == -1).all()
    sum(detection_loss(pred, target).values()).backward()
    charged = pred.grad[0, :, 4:] != 0
    assert charged.tolist() == [[False, True], [True, True]]


def test_a_box_in_a_crowd_is_still_learned():
    pred = say((0.3, 0.3, 0.4, 0.4, 0, -1.0)).requires_grad_()
    target = known([(0.2, 0.2, 0.6, 0.6, 0), (0.3, 0.3, 0.42, 0.42, 0)], crowd=[(0, 0)])
    sum(detection_loss(pred, target).values()).backward()
    assert pred.grad[0, 0, 4] < 0 and pred.grad[0, 0, :4].any()


def test_no_places_at_all():
    assert detection_loss(torch.zeros(2, 0, 6), known([(0.1, 0.1, 0.3, 0.3, 0)], []))["score"] == 0


def test_half_precision_is_read_as_float():
    pred, target = drawn_pred(2, 20, 3), drawn_target(2, 3, 3)
    half = detection_loss(pred.bfloat16(), target)
    full = detection_loss(pred.bfloat16().float(), target)
    assert half["box"].dtype == torch.float32
    assert {name: term.item() for name, term in half.items()} == {name: term.item() for name, term in full.items()}


@pytest.mark.parametrize("how", ["many", "one"])
def test_places_of_almost_no_size_become_the_boxes(how):
    target = known([(0.1, 0.1, 0.4, 0.5, 0), (0.5, 0.4, 0.9, 0.9, 1)], [(0.3, 0.2, 0.5, 0.3, 1)])
    grid = (torch.arange(8) + 0.5) / 8
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    points = torch.stack((x - 0.01, y - 0.01, x + 0.01, y + 0.01), -1).reshape(1, 64, 4).repeat(2, 1, 1)
    sides, logits = points.requires_grad_(), torch.full((2, 64, 2), -4.6).requires_grad_()
    optimiser = torch.optim.Adam([{"params": [sides], "lr": 0.01}, {"params": [logits], "lr": 0.1}])
    calmer = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, 300)
    for _ in range(300):
        optimiser.zero_grad()
        sum(detection_loss(torch.cat((sides, logits), -1), target, assign=how).values()).backward()
        optimiser.step()
        calmer.step()
    scores, classes = logits.detach().sigmoid().max(-1)
    for image, boxes in enumerate(([0, 1], [0])):
        for m in boxes:
            mine = (classes[image] == target["labels"][image, m]) & (scores[image] > 0.5)
            assert iou(sides.detach()[image, mine], target["boxes"][image, m]).max() > 0.95

"""What is special to the losses for detectors: box_logits, ld, fgd, pkd, pseudo_labels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit.batches import batch_of
from kit.features import drawn, outputs, ready
from kit.method_inputs import logit_terms
from kit.targets import drawn_pred, known

from stillroom.methods._errors import BoxLocationsMismatch
from stillroom.methods.box_logits import BoxLogits, box_logits_loss
from stillroom.methods.fgd import FGD, attention, box_weights, fgd_loss
from stillroom.methods.ld import LD, ld_loss
from stillroom.methods.pkd import pkd_loss, standardised
from stillroom.methods.pseudo_labels import PseudoLabels, confident_boxes
from stillroom.types import Output

seeds = st.integers(0, 2**31)


@pytest.mark.parametrize("kind", [BoxLogits, LD])
def test_unlike_places_are_refused(kind):
    with pytest.raises(BoxLocationsMismatch) as caught:
        kind().setup(Output(pred=drawn_pred(2, 9, 3)), Output(pred=drawn_pred(2, 8, 3)))
    assert (caught.value.values["student"], caught.value.values["theirs"]) == (9, 8)
    assert "pseudo_labels" in caught.value.fix
    kind().setup(Output(pred=drawn_pred(2, 9, 3)), Output(pred=drawn_pred(2, 9, 3, seed=1)))


@given(seeds)
def test_pkd_of_the_opposite_is_two_and_dead_channels_are_zero(seed):
    s = drawn(3, 4, 3, 5, seed=seed)
    assert pkd_loss(s, -s).item() == pytest.approx(2, rel=1e-4)
    assert standardised(torch.zeros(2, 3, 4, 4)).abs().max() == 0
    assert pkd_loss(s[:1, :, :1, :1], s[1:2, :, :1, :1]) == 0  # of one value a channel


@given(st.integers(0, 1000))
def test_equal_boxes_or_scores_cost_nothing_where_they_are_compared(seed):
    """Boxes are not box_logits' business, nor scores localisation's."""
    s, t = drawn_pred(2, 7, 3, seed=seed), drawn_pred(2, 7, 3, seed=seed + 1)
    assert ld_loss(t, t).item() == pytest.approx(0, abs=1e-6)
    assert box_logits_loss(s, t) > 0 and 0 < ld_loss(s, t) <= 2
    assert box_logits_loss(torch.cat((s[..., :4], t[..., 4:]), 2), t).item() == 0
    assert ld_loss(torch.cat((t[..., :4], s[..., 4:]), 2), t).item() == pytest.approx(0, abs=1e-6)


def test_a_place_that_the_teacher_does_not_believe_in_teaches_no_box():
    s, t = drawn_pred(1, 4, 2), drawn_pred(1, 4, 2, seed=1)
    t[0, 1:, 4:] = -30
    ld_loss(s.requires_grad_(), t).backward()
    assert s.grad[0, 0].abs().max() > 1e-3 and s.grad[0, 1:].abs().max() < 1e-8


def test_a_teacher_that_sees_little_is_not_divided_by_less_than_one():
    s, t = drawn_pred(1, 4, 2).double(), drawn_pred(1, 4, 2, seed=1).double()
    t[..., 4:] = -6
    less = t.clone()
    less[:, 2:, 4:] = -60
    assert ld_loss(s, less) < 0.75 * ld_loss(s, t) < 0.75 * 2 * 4 * 0.0025
    flat = torch.zeros(1, 3, 6, requires_grad=True)  # boxes of no width
    ld_loss(flat, drawn_pred(1, 3, 2)).backward()
    assert flat.grad.isfinite().all()


@given(seeds)
def test_every_box_weighs_one_and_the_background_too(seed):
    draw = torch.Generator().manual_seed(seed)
    corners = torch.rand(3, 2, 2, 2, generator=draw).sort(2).values.flatten(2)
    corners[:, 1] = corners[:, 0]  # twice the same
    real = torch.tensor([[True, True], [True, False], [False, False]])
    objects, rest = box_weights(corners, real, 7, 5)
    assert objects.sum((1, 2, 3)).tolist() == pytest.approx([1, 1, 0], abs=1e-6)
    assert all(x == pytest.approx(1, abs=1e-6) or x == 0 for x in rest.sum((1, 2, 3)).tolist())
    assert rest[2].sum().item() == pytest.approx(1) and not ((objects > 0) & (rest > 0)).any()


def test_a_point_is_on_one_place_and_a_box_at_the_border_in_the_last():
    points = torch.tensor([[[0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 1.0, 1.0]]])
    objects, _ = box_weights(points, torch.tensor([[True, True]]), 4, 4)
    assert objects[0, 0].nonzero().tolist() == [[2, 2], [3, 3]]


def foreground(target, s, t, **arguments):
    method = ready(FGD(**arguments), [s], [t])
    terms = method.loss(method.project(outputs([s], "s")), outputs([t], "t"), batch_of(len(s), target), 0.0)
    return {name: value.item() for name, value in terms.items()}


def test_foreground_with_boxes_without_and_with_images_that_were_not_searched():
    s, t = drawn(2, 3, 4, 4), drawn(2, 3, 4, 4, seed=1)
    boxes = [(0.1, 0.1, 0.4, 0.4, 0)], [(0.5, 0.2, 0.9, 0.9, 1)]
    some, none = foreground(known(*boxes), s, t), foreground(known([], []), s, t)
    assert none == foreground(known(*boxes, unknown=[0, 1]), s, t)
    assert none["attention"] == some["attention"] and none["objects"] != some["objects"]
    assert foreground(known([], []), s, t, background=0.0)["objects"] == 0
    doubled = foreground(known(*boxes), s, t, attention=2.0)
    assert doubled == pytest.approx({"objects": some["objects"], "attention": 2 * some["attention"]})
    assert foreground(known(*boxes), s, s) == {"objects": 0, "attention": 0}


def test_foreground_counts_what_is_inside_alone_without_background():
    s, t = drawn(1, 2, 4, 4), drawn(1, 2, 4, 4, seed=1)
    target = known([(0.25, 0.25, 0.75, 0.5, 0)])
    real, how = target["labels"] >= 0, {"background": 0.0, "temperature": 0.5}
    before = fgd_loss(s, t, target["boxes"], real, **how)
    outside = s.clone()
    outside[..., 2:, :] += 10
    assert fgd_loss(outside, t, target["boxes"], real, **how) == before
    s[0, 0, 1, 2] += 1
    assert fgd_loss(s, t, target["boxes"], real, **how) != before
    places, channels = attention(t, 0.5)
    assert places.mean().item() == pytest.approx(1) and channels.mean().item() == pytest.approx(1)


def pseudo(searched, **arguments):
    """The terms and the student's gradient, of two images of which some were searched for boxes."""
    student, teacher = (drawn_pred(2, 9, 3, seed=seed) for seed in (0, 1))
    teacher[..., 4:] += 3
    target = known([], [], unknown=[row for row, done in enumerate(searched) if not done])
    terms = logit_terms(PseudoLabels(**arguments), student.requires_grad_(), teacher, target)
    torch.stack(list(terms.values())).sum().backward()
    return terms, student.grad.abs().amax((1, 2)) > 0


def test_pseudo_labels_teach_the_images_without_labels():
    terms, learns = pseudo([True, False])
    assert learns.tolist() == [False, True] and terms["box"] > 0
    terms, learns = pseudo([True, True])
    assert not learns.any() and all(value == 0 for value in terms.values())
    assert pseudo([True, True], on="all")[1].all()
    assert "corners" in pseudo([False, False], assign="one")[0]


def test_sure_boxes_without_any_and_of_a_broken_teacher():
    pred = drawn_pred(2, 9, 3)
    none = confident_boxes(pred - 20, score_threshold=0.5, nms_iou=0.6, max_detections=5)
    assert none["labels"].shape == (2, 5) and (none["labels"] == -1).all() and none["boxes"].abs().max() == 0
    broken = pred.clone()
    broken[..., 4:] += 9
    broken[..., :2] = broken[..., 2:4] + 0.1  # turned over
    assert (confident_boxes(broken, score_threshold=0.5, nms_iou=0.6, max_detections=5)["labels"] == -1).all()

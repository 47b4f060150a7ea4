"""What methods for detectors must not notice, and what they must."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.features import drawn, ready, teaches
from kit.targets import drawn_pred, known

from stillroom.errors import StillroomError
from stillroom.methods.box_logits import BoxLogits, box_logits_loss
from stillroom.methods.fgd import FGD, attention, fgd_loss, inside
from stillroom.methods.ld import LD, ld_loss
from stillroom.methods.pkd import PKD, pkd_loss, standardised
from stillroom.methods.pseudo_labels import PseudoLabels, sure_boxes
from stillroom.types import Batch, Output

seeds = st.integers(0, 2**31)
REFUSED = [
    (FGD, {"background": -1}, r"background must be at least 0"),
    (FGD, {"temperature": 0}, r"temperature must be above 0"),
    (BoxLogits, {"focus": -0.1}, r"focus must be at least 0"),
    (LD, {"power": -1}, r"power must be at least 0"),
    (LD, {"sides": float("nan")}, r"sides must be at least 0"),
    (PseudoLabels, {"score_threshold": 1.2}, r"score_threshold must be in 0 to 1"),
    (PseudoLabels, {"max_detections": 0}, r"max_detections must be at least 1"),
    (PseudoLabels, {"on": "some"}, r"on must be one of unlabelled, all"),
    (PseudoLabels, {"assign": "few"}, r"assign must be one of many, one"),
]


@pytest.mark.parametrize(("kind", "arguments", "said"), REFUSED)
def test_what_is_refused(kind, arguments, said):
    with pytest.raises(ValueError, match=said):
        kind(**arguments)


@pytest.mark.parametrize("kind", [BoxLogits, LD])
def test_unlike_places_are_refused_and_the_way_out_is_named(kind):
    with pytest.raises(StillroomError, match="SR-M336") as caught:
        kind().setup(Output(pred=drawn_pred(2, 9, 3)), Output(pred=drawn_pred(2, 8, 3)))
    assert "pseudo_labels" in caught.value.fix and "9 places" in caught.value.what
    kind().setup(Output(pred=drawn_pred(2, 9, 3)), Output(pred=drawn_pred(2, 9, 3, seed=1)))


@pytest.mark.parametrize("kind", [BoxLogits, LD, PseudoLabels, FGD])
def test_only_detectors_are_taught(kind):
    assert kind.supports("boxes") and not kind.supports("classes") and not kind.supports("vector")


@given(seeds, st.floats(1e-2, 1e2), st.floats(-50, 50))
@settings(max_examples=30, deadline=None)
def test_pkd_does_not_see_shift_and_scale_and_lies_between_0_and_2(seed, scale, shift):
    s, t = drawn(3, 4, 3, 5, seed=seed), drawn(3, 4, 3, 5, seed=seed + 1)
    expected = pkd_loss(s, t).item()
    assert 0 < expected < 2
    assert pkd_loss(s * scale + shift, t).item() == pytest.approx(expected, rel=1e-3)
    assert pkd_loss(s, s * scale + shift).item() == pytest.approx(0, abs=1e-6)
    assert pkd_loss(s, -s).item() == pytest.approx(2, rel=1e-4)


def test_pkd_with_a_dead_channel_one_value_and_none():
    dead = torch.zeros(2, 3, 4, 4, requires_grad=True)
    pkd_loss(dead, drawn(2, 3, 4, 4, dtype=torch.float32)).backward()
    assert dead.grad.isfinite().all() and standardised(dead).abs().max() == 0
    single = drawn(1, 3, 1, 1).requires_grad_()
    assert pkd_loss(single, drawn(1, 3, 1, 1, seed=1)) == 0
    none = torch.zeros(0, 3, 4, 4, requires_grad=True)
    pkd_loss(none, none.detach()).backward()
    assert none.grad.shape == none.shape
    s = drawn(2, 2, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pkd_loss(x, drawn(2, 2, 3, 3, seed=1)), (s,))


def test_pkd_between_widths_sizes_and_tokens():
    s, t = [drawn(4, 17, 3), drawn(4, 2, 8, 8)], [drawn(4, 5, 8, 8, seed=1), drawn(4, 10, 7, seed=1)]
    assert teaches(ready(PKD(), s, t), s, t)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_equal_detectors_pay_nothing_and_others_something(seed):
    s, t = drawn_pred(2, 7, 3, seed=seed % 1000), drawn_pred(2, 7, 3, seed=seed % 1000 + 1)
    assert box_logits_loss(t, t).item() == 0
    assert ld_loss(t, t).item() == pytest.approx(0, abs=1e-6)
    assert box_logits_loss(s, t).item() > 0 and 0 < ld_loss(s, t).item() <= 2
    boxes = torch.cat((s[..., :4], t[..., 4:]), 2)
    assert box_logits_loss(boxes, t).item() == 0  # boxes are not its business
    scores = torch.cat((t[..., :4], s[..., 4:]), 2)
    assert ld_loss(scores, t).item() == pytest.approx(0, abs=1e-6)


def test_a_place_that_the_teacher_does_not_believe_in_teaches_no_box():
    s, t = drawn_pred(1, 4, 2), drawn_pred(1, 4, 2, seed=1)
    t[0, 1:, 4:] = -30
    s.requires_grad_()
    ld_loss(s, t).backward()
    assert s.grad[0, 0].abs().max() > 1e-3 and s.grad[0, 1:].abs().max() < 1e-8


def test_extreme_logits_half_precision_and_empty_batches():
    s, t = drawn_pred(2, 5, 3), drawn_pred(2, 5, 3, seed=1)
    s[..., 4:], t[..., 4:] = s[..., 4:] * 100, t[..., 4:] * -100
    s.requires_grad_()
    for focus in (0.0, 0.5, 1.0, 2.0):
        s.grad = None
        box_logits_loss(s, t, focus).backward()
        assert s.grad.isfinite().all()
    for loss in (box_logits_loss, ld_loss):
        assert loss(s.half(), t.half()).dtype == torch.float32
        assert loss(s[:0], t[:0]) == 0
    flat = torch.zeros(1, 3, 6, requires_grad=True)  # boxes of no width
    ld_loss(flat, t[:1, :3, :6]).backward()
    assert flat.grad.isfinite().all()


def test_gradients():
    s, t = (drawn_pred(2, 3, 2, seed=seed).double() for seed in (0, 1))
    s.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: box_logits_loss(x, t), (s,))
    assert torch.autograd.gradcheck(lambda x: ld_loss(x, t, 1.0, 2.0), (s,), atol=1e-4)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_every_box_weighs_one_and_the_background_too(seed):
    draw = torch.Generator().manual_seed(seed)
    corners = torch.rand(3, 2, 2, 2, generator=draw).sort(2).values.flatten(2)
    corners[:, 1] = corners[:, 0]  # twice the same
    real = torch.tensor([[True, True], [True, False], [False, False]])
    objects, rest = inside(corners, real, 7, 5)
    assert objects.sum((1, 2, 3)).tolist() == pytest.approx([1, 1, 0], abs=1e-6)
    assert all(x == pytest.approx(1, abs=1e-6) or x == 0 for x in rest.sum((1, 2, 3)).tolist())
    assert rest[2].sum().item() == pytest.approx(1) and not ((objects > 0) & (rest > 0)).any()


def test_a_point_is_on_one_place_and_a_box_at_the_border_in_the_last():
    objects, _ = inside(
        torch.tensor([[[0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 1.0, 1.0]]]), torch.tensor([[True, True]]), 4, 4
    )
    assert objects[0, 0].nonzero().tolist() == [[2, 2], [3, 3]]


def foreground(target, s, t, **arguments):
    method = ready(FGD(**arguments), s, t)
    batch = Batch(images=torch.zeros(len(s[0]), 1, 2, 2), target=target, keys=torch.arange(len(s[0])))
    outputs = [Output(pred=x[0], taps={f"{n}0": x[0]}) for n, x in (("s", s), ("t", t))]
    return method.loss(method.project(outputs[0]), outputs[1], batch, 0.0)


def test_foreground_with_boxes_without_and_with_images_nobody_looked_at():
    s, t = [drawn(2, 3, 4, 4)], [drawn(2, 3, 4, 4, seed=1)]
    boxes = [(0.1, 0.1, 0.4, 0.4, 0)], [(0.5, 0.2, 0.9, 0.9, 1)]
    some = {k: v.item() for k, v in foreground(known(*boxes), s, t).items()}
    none = {k: v.item() for k, v in foreground(known([], []), s, t).items()}
    unknown = {k: v.item() for k, v in foreground(known(*boxes, unknown=[0, 1]), s, t).items()}
    assert none == unknown and none["attention"] == some["attention"] and none["objects"] != some["objects"]
    assert foreground(known([], []), s, t, background=0.0)["objects"] == 0
    doubled = foreground(known(*boxes), s, t, attention=2.0)["attention"].item()
    assert doubled == pytest.approx(2 * some["attention"])
    assert foreground(known(*boxes), s, s)["objects"] == 0 == foreground(known(*boxes), s, s)["attention"]


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


def test_foreground_refuses_vectors():
    with pytest.raises(StillroomError, match="SR-M330"):
        ready(FGD(), [drawn(2, 3)], [drawn(2, 3)])


def pseudo(known_, **arguments):
    student, teacher = (drawn_pred(2, 9, 3, seed=seed) for seed in (0, 1))
    teacher[..., 4:] += 3
    student.requires_grad_()
    target = known([], [], unknown=[row for row, looked in enumerate(known_) if not looked])
    batch = Batch(images=torch.zeros(2, 1, 2, 2), target=target, keys=torch.arange(2))
    terms = PseudoLabels(**arguments).loss(Output(pred=student), Output(pred=teacher), batch, 0.0)
    torch.stack(list(terms.values())).sum().backward()
    return terms, student.grad


def test_pseudo_labels_teach_the_images_that_nobody_labelled():
    terms, grad = pseudo([True, False])
    assert grad[0].abs().max() == 0 and grad[1].abs().max() > 0 and terms["box"] > 0
    terms, grad = pseudo([True, True])
    assert grad.abs().max() == 0 and all(value == 0 for value in terms.values())
    _, grad = pseudo([True, True], on="all")
    assert grad[0].abs().max() > 0 and grad[1].abs().max() > 0
    assert "corners" in pseudo([False, False], assign="one")[0]


def test_sure_boxes_without_any_and_of_a_broken_teacher():
    pred = drawn_pred(2, 9, 3)
    none = sure_boxes(pred - 20, score_threshold=0.5, nms_iou=0.6, max_detections=5)
    assert none["labels"].shape == (2, 5) and (none["labels"] == -1).all() and none["boxes"].abs().max() == 0
    broken = pred.clone()
    broken[..., 4:] += 9
    broken[..., :2] = broken[..., 2:4] + 0.1  # turned over
    assert (sure_boxes(broken, score_threshold=0.5, nms_iou=0.6, max_detections=5)["labels"] == -1).all()

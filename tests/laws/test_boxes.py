"""What holds for all boxes."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st
from kit.targets import drawn_boxes, drawn_pred, drawn_target

from stillroom.distributed.collectives import all_reduce_sum
from stillroom.ops.assignment import assign_boxes
from stillroom.ops.boxes import giou, iou
from stillroom.ops.detection_loss import detection_loss
from stillroom.ops.nms import nms

seeds = st.integers(0, 10_000)
hows = st.sampled_from(["many", "one"])


@given(seeds, st.floats(0.2, 5), st.floats(0.2, 5), st.floats(-1, 1))
def test_overlaps_ignore_position_and_the_size_of_either_axis(seed, wide, high, shift):
    a, b = drawn_boxes(20, seed=seed), drawn_boxes(20, seed=seed + 1)
    stretch = torch.tensor([wide, high, wide, high])
    for measure in (iou, giou):
        assert torch.allclose(measure(a * stretch + shift, b * stretch + shift), measure(a, b), atol=1e-3)


@given(seeds)
def test_overlaps_are_symmetric_and_bounded(seed):
    a, b = drawn_boxes(20, seed=seed), drawn_boxes(20, seed=seed + 1)
    assert torch.equal(iou(a, b), iou(b, a))
    assert (giou(a, b) <= iou(a, b) + 1e-6).all() and (giou(a, b) >= -1).all()
    assert torch.allclose(giou(a, a), torch.ones(20))


@given(seeds, st.floats(0.1, 0.9))
def test_kept_boxes_leave_each_other_room_and_every_other_has_a_reason(seed, limit):
    boxes, classes = drawn_boxes(1, 60, seed=seed, least=0.3), torch.arange(60)[None] % 2
    kept = nms(boxes, classes, limit)[0]
    near = (iou(boxes[0, :, None], boxes[0]) > limit) & (classes[0, :, None] == classes[0])
    before = torch.ones(60, 60, dtype=torch.bool).tril(-1)
    assert kept.tolist() == (~(near & before & kept).any(1)).tolist()


@given(seeds, hows)
def test_an_assignment_is_one(seed, how):
    pred, target = drawn_pred(3, 50, 3, seed), drawn_target(3, 4, 3, seed)
    found = assign_boxes(pred, target, how)
    assert ((found.quality > 0) == (found.box >= 0)).all() and (found.quality <= 1).all()
    for image in range(3):
        boxes = found.box[image][found.box[image] >= 0]
        assert (target["labels"][image, boxes] >= 0).all()
        counts = boxes.bincount(minlength=4)
        assert (counts <= (13 if how == "many" else 1)).all()
        if how == "one":
            assert counts.sum() == (target["labels"][image] >= 0).sum()


@given(seeds, hows, st.randoms())
def test_neither_the_order_of_boxes_nor_padding_nor_the_order_of_places_counts(seed, how, draw):
    pred, target = drawn_pred(2, 30, 3, seed), drawn_target(2, 4, 3, seed)
    expected = {name: term.item() for name, term in detection_loss(pred, target, assign=how).items()}
    order = torch.tensor(draw.sample(range(4), 4))
    moved = {name: value[:, order] if name in ("boxes", "labels", "crowd") else value for name, value in target.items()}
    moved |= {
        "boxes": torch.cat((moved["boxes"], torch.rand(2, 2, 4)), 1),
        "labels": torch.cat((moved["labels"], torch.full((2, 2), -1)), 1),
        "crowd": torch.cat((moved["crowd"], torch.ones(2, 2, dtype=torch.bool)), 1),
    }
    places = torch.tensor(draw.sample(range(30), 30))
    found = {name: term.item() for name, term in detection_loss(pred[:, places], moved, assign=how).items()}
    assert found == pytest.approx(expected, rel=1e-4)


def gradient(rank, world):
    pred, target = drawn_pred(4, 30, 3).requires_grad_(), drawn_target(4, 5, 3)
    share = slice(rank * 4 // world, (rank + 1) * 4 // world)
    terms = detection_loss(pred[share], {name: value[share] for name, value in target.items()}, assign="one")
    sum(terms.values()).backward()
    return all_reduce_sum(pred.grad) / world, terms


def process(rank, world, file, found):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    grads, terms = gradient(rank, world)
    torch.save((grads, {name: term.detach() for name, term in terms.items()}), f"{found}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_charge_as_one(tmp_path):
    mp.spawn(process, (2, tmp_path / "meet", str(tmp_path)), nprocs=2)
    grads, terms = gradient(0, 1)
    for rank in range(2):
        theirs, said = torch.load(tmp_path / f"{rank}.pt")
        assert torch.allclose(theirs, grads, atol=1e-7)
        assert {name: term.item() for name, term in said.items()} == pytest.approx(
            {name: term.item() for name, term in terms.items()}, rel=1e-5
        )

"""Boxes against torchvision's operators, scipy's assignment, and loops."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision.ops as ops
from kit.targets import drawn_boxes, drawn_pred, drawn_target
from scipy.optimize import linear_sum_assignment

from stillroom.ops.assignment import assign_boxes
from stillroom.ops.boxes import giou, iou, to_centres, to_corners
from stillroom.ops.detection_loss import detection_loss
from stillroom.ops.nms import nms


def test_overlaps_are_torchvisions():
    a, b = drawn_boxes(40), drawn_boxes(30, seed=1)
    assert torch.allclose(iou(a[:, None], b), ops.box_iou(a, b), atol=1e-6)
    assert torch.allclose(giou(a[:, None], b), ops.generalized_box_iou(a, b), atol=1e-6)


def test_conversions_are_torchvisions():
    a = drawn_boxes(20)
    assert torch.allclose(to_centres(a), ops.box_convert(a, "xyxy", "cxcywh"))
    assert torch.allclose(to_corners(to_centres(a)), a, atol=1e-6)


def scattered(n, objects, spread, classes, seed):
    """What a detector says of some objects before suppression: n boxes around them, by falling score."""
    draw = torch.Generator().manual_seed(seed)
    of = torch.randint(0, objects, (n,), generator=draw)
    true = to_centres(drawn_boxes(objects, seed=seed, least=0.1, most=0.4))[of]
    said = true + torch.randn(n, 4, generator=draw) * spread * true[:, 2:].repeat(1, 2)
    said[:, 2:] = said[:, 2:].clamp(min=0.01)
    scores = torch.rand(n, generator=draw).sort(descending=True).values
    return to_corners(said), scores, (of + torch.randint(0, 2, (n,), generator=draw)) % classes


@pytest.mark.parametrize("limit", [0.3, 0.5, 0.6, 0.8])
@pytest.mark.parametrize(("objects", "spread"), [(1, 0.2), (3, 0.05), (10, 0.1), (30, 0.3), (200, 1.0)])
def test_suppression_is_torchvisions(limit, objects, spread):
    for seed in range(5):
        cases = [scattered(300, objects, spread, classes, seed) for classes in (1, 3)]
        boxes, classes = torch.stack([case[0] for case in cases]), torch.stack([case[2] for case in cases])
        kept = nms(boxes, classes, limit)
        for row, (box, scores, label) in enumerate(cases):
            expected = ops.batched_nms(box, scores, label, limit).sort().values
            assert kept[row].nonzero().flatten().tolist() == expected.tolist()


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def overlap(a, b):
    return ops.box_iou(torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)).item()


def naive_many(said, boxes):
    """Places [A][4 + K] and boxes [(l, t, r, b, class)] of one image -> the box and quality of each place."""
    wishes = {}  # place -> [(overlap, box)]
    for m, (*sides, label) in enumerate(boxes):
        order = []
        for a, place in enumerate(said):
            x, y = (place[0] + place[2]) / 2, (place[1] + place[3]) / 2
            far = math.dist((x, y), ((sides[0] + sides[2]) / 2, (sides[1] + sides[3]) / 2))
            u = max(overlap(place[:4], sides), 0.1)
            t = sigmoid(place[4 + label]) * u**6
            within = sides[0] < x < sides[2] and sides[1] < y < sides[3]
            order.append((0, -math.log(t) + 1e-3 * far, a, u, far) if within else (1, far, a, u, far))
        for _, _, a, u, far in sorted(order)[:13]:
            wishes.setdefault(a, []).append((u - 1e-3 * far, m))
    owner = {a: max(found, key=lambda pair: pair[0])[1] for a, found in wishes.items()}
    quality = [0.0] * len(said)
    for m, (*sides, label) in enumerate(boxes):
        mine = [a for a in owner if owner[a] == m]
        u = {a: max(overlap(said[a][:4], sides), 0.1) for a in mine}
        t = {a: sigmoid(said[a][4 + label]) * u[a] ** 6 for a in mine}
        for a in mine:
            quality[a] = t[a] / max(t.values()) * max(u.values())
    return [owner.get(a, -1) for a in range(len(said))], quality


def rows_of(target, image):
    return [
        (*box.tolist(), int(label))
        for box, label in zip(target["boxes"][image], target["labels"][image], strict=True)
        if label >= 0
    ]


def test_many_places_against_loops():
    pred, target = drawn_pred(4, 60, 3), drawn_target(4, 5, 3)
    found = assign_boxes(pred, target, "many")
    for image in range(4):
        box, quality = naive_many(pred[image].double().tolist(), rows_of(target, image))
        assert found.box[image].tolist() == box
        assert found.quality[image].tolist() == pytest.approx(quality, abs=1e-5)


def test_one_place_against_scipy():
    pred, target = drawn_pred(4, 30, 3), drawn_target(4, 5, 3)
    found = assign_boxes(pred, target, "one")
    for image in range(4):
        boxes = rows_of(target, image)
        cost = torch.zeros(len(boxes), 30, dtype=torch.float64)
        for m, (*sides, label) in enumerate(boxes):
            for a, place in enumerate(pred[image].double()):
                p = sigmoid(place[4 + label])
                focal = 0.25 * (1 - p) ** 2 * -math.log(p) - 0.75 * p**2 * -math.log(1 - p)
                true = torch.tensor([sides], dtype=torch.float64)
                apart = (place[:4] - true[0]).abs().sum()
                cost[m, a] = 2 * focal + 5 * apart - 2 * ops.generalized_box_iou(place[None, :4], true).item()
        expected = [-1] * 30
        for m, a in zip(*linear_sum_assignment(cost.numpy()), strict=True):
            expected[a] = int(m)
        assert found.box[image].tolist() == expected
        for a, m in enumerate(expected):
            quality = max(overlap(pred[image, a, :4].tolist(), boxes[m][:4]), 0.1) if m >= 0 else 0.0
            assert found.quality[image, a].item() == pytest.approx(quality, abs=1e-5)


@pytest.mark.parametrize("how", ["many", "one"])
def test_the_loss_against_loops(how):
    pred, target = drawn_pred(3, 40, 4), drawn_target(3, 5, 4)
    found = assign_boxes(pred, target, how)
    score = box = corners = weight = 0.0
    for b in range(3):
        boxes = rows_of(target, b)
        for a in range(40):
            m, q = int(found.box[b, a]), float(found.quality[b, a])
            for k in range(4):
                p, wanted = sigmoid(pred[b, a, 4 + k].item()), q if m >= 0 and boxes[m][4] == k else 0.0
                score -= (wanted - p) ** 2 * (wanted * math.log(p) + (1 - wanted) * math.log(1 - p))
            if m >= 0:
                true = torch.tensor([boxes[m][:4]])
                box += 2 * q * (1 - ops.generalized_box_iou(pred[b, a, None, :4], true).item())
                corners += 5 * q * (pred[b, a, :4] - true[0]).abs().sum().item()
                weight += q
    assert weight > 1
    expected = {"score": score / weight, "box": box / weight} | ({"corners": corners / weight} if how == "one" else {})
    terms = detection_loss(pred, target, assign=how)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-4)

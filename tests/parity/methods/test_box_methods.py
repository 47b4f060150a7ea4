"""What teaches detectors, against its formulas written as loops."""

from __future__ import annotations

import math

import pytest
import torch
from kit.features import drawn
from kit.targets import drawn_pred, known
from torchvision.ops import batched_nms, generalized_box_iou

from stillroom.methods.box_logits import box_logits_loss
from stillroom.methods.fgd import attention_loss, fgd_loss
from stillroom.methods.ld import ld_loss
from stillroom.methods.pkd import pkd_loss
from stillroom.methods.pseudo_labels import pseudo_labels_loss, sure_boxes
from stillroom.ops.detection_loss import detection_loss


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def preds(seed=0, images=3, places=9, classes=4):
    return (drawn_pred(images, places, classes, seed=seed + i).double() for i in range(2))


@pytest.mark.parametrize("focus", [0.0, 1.0, 2.0])
def test_box_logits(focus):
    s, t = preds()
    total, sure = 0.0, 0.0
    for ours, theirs in zip(s.flatten(0, 1).tolist(), t.flatten(0, 1).tolist(), strict=True):
        sure += max(sigmoid(x) for x in theirs[4:])
        for x, y in zip(ours[4:], theirs[4:], strict=True):
            q, p = sigmoid(x), sigmoid(y)
            kl = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
            total += abs(p - q) ** focus * kl
    assert sure > 1
    assert box_logits_loss(s, t, focus).item() == pytest.approx(total / sure, rel=1e-9)


@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize("sides", [0.0, 5.0])
def test_localisation(power, sides):
    s, t = preds()
    total, sure = 0.0, 0.0
    for ours, theirs in zip(s.flatten(0, 1), t.flatten(0, 1), strict=True):
        c = theirs[4:].sigmoid().max().item() ** power
        apart = 1 - generalized_box_iou(ours[None, :4], theirs[None, :4]).item()
        apart += sides * sum(abs(a - b) for a, b in zip(ours[:4].tolist(), theirs[:4].tolist(), strict=True))
        total, sure = total + c * apart, sure + c
    assert ld_loss(s, t, power, sides).item() == pytest.approx(total / max(1, sure), rel=1e-6)


def test_pkd_is_one_minus_pearsons_correlation_of_channels():
    s, t = drawn(3, 5, 4, 6), drawn(3, 5, 4, 6, seed=1) * 7 + 2
    rows = (x.transpose(0, 1).flatten(1) for x in (s, t))
    each = [torch.corrcoef(torch.stack(pair))[0, 1].item() for pair in zip(*rows, strict=True)]
    assert pkd_loss(s, t).item() == pytest.approx(1 - sum(each) / 5, rel=1e-5)


def looks(image, temperature):
    """One image [C][h][w]: how much its places and its channels are looked at."""
    c, h, w = len(image), len(image[0]), len(image[0][0])
    places = [[sum(abs(image[k][y][x]) for k in range(c)) / c for x in range(w)] for y in range(h)]
    channels = [sum(abs(value) for row in channel for value in row) / (h * w) for channel in image]
    total = sum(math.exp(v / temperature) for row in places for v in row)
    summed = sum(math.exp(v / temperature) for v in channels)
    spread = [[h * w * math.exp(v / temperature) / total for v in row] for row in places]
    return spread, [c * math.exp(v / temperature) / summed for v in channels]


def test_foreground_with_two_boxes_over_each_other_one_that_is_crossed_and_none():
    target = known([(0, 0, 0.5, 0.5, 0), (0.25, 0.25, 0.5, 0.5, 1)], [(0.6, 0.1, 0.9, 0.4, 1)], [])
    s, t = drawn(3, 2, 4, 4), drawn(3, 2, 4, 4, seed=1)
    # By hand: the smallest box on each of 4 x 4 places, as the number of its places; 0 is background.
    sizes = [
        [[4, 4, 0, 0], [4, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 0, 0], [0, 0, 0, 0]],
        [[0] * 4] * 4,
    ]
    total = apart = 0.0
    for ours, theirs, on in zip(s.tolist(), t.tolist(), sizes, strict=True):
        rest = sum(value == 0 for row in on for value in row)
        places, channels = looks(theirs, 0.5)
        mine, my = looks(ours, 0.5)
        apart += sum(abs(mine[y][x] - places[y][x]) for y in range(4) for x in range(4))
        apart += sum(abs(a - b) for a, b in zip(my, channels, strict=True))
        for y in range(4):
            for x in range(4):
                much = 1 / on[y][x] if on[y][x] else 0.3 / rest
                for c in range(2):
                    total += much * places[y][x] * channels[c] * (ours[c][y][x] - theirs[c][y][x]) ** 2
    real = target["labels"] >= 0
    found = fgd_loss(s, t, target["boxes"], real, background=0.3, temperature=0.5).item()
    assert found == pytest.approx(total / 3, rel=1e-6)
    assert attention_loss(s, t, 0.5).item() == pytest.approx(apart / 3, rel=1e-9)


def test_sure_boxes_are_torchvisions_suppression():
    pred = drawn_pred(4, 60, 3, seed=3)
    pred[..., 4:] += 1.5
    found = sure_boxes(pred, score_threshold=0.4, nms_iou=0.5, max_detections=100)
    for b, image in enumerate(pred):
        score, label = image[:, 4:].sigmoid().max(1)
        sure = score >= 0.4
        kept = batched_nms(image[sure, :4], score[sure], label[sure], 0.5)
        here = found["labels"][b] >= 0
        assert 1 < here.sum() == len(kept) < sure.sum()
        assert torch.equal(found["boxes"][b][here], image[sure, :4][kept])
        assert torch.equal(found["labels"][b][here], label[sure][kept])
    assert not found["crowd"].any()


def test_pseudo_labels_charge_what_the_label_loss_charges_for_boxes_written_down():
    student = drawn_pred(2, 9, 2, seed=5)
    teacher = torch.full((2, 5, 6), -9.0)
    teacher[..., :4] = torch.tensor([0.0, 0.0, 0.1, 0.1])
    teacher[0, 3] = torch.tensor([0.2, 0.2, 0.6, 0.7, -3, 2])
    teacher[1, 1] = torch.tensor([0.5, 0.1, 1.2, 0.6, 1, -3])  # reaches over the border
    target = known([(0.2, 0.2, 0.6, 0.7, 1)], [(0.5, 0.1, 1.0, 0.6, 0)])
    expected = detection_loss(student, target)
    how = {"score_threshold": 0.5, "nms_iou": 0.6, "max_detections": 100}
    found = pseudo_labels_loss(student, teacher, torch.tensor([True, True]), **how)
    assert {k: v.item() for k, v in found.items()} == pytest.approx({k: v.item() for k, v in expected.items()})
    first = detection_loss(student, known([(0.2, 0.2, 0.6, 0.7, 1)], [], unknown=[1]))
    found = pseudo_labels_loss(student, teacher, torch.tensor([True, False]), **how)
    assert {k: v.item() for k, v in found.items()} == pytest.approx({k: v.item() for k, v in first.items()})

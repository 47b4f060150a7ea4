"""What agreement of boxes must not notice, and what it must."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.answers import CLASSES, drawn

from stillroom.metrics.box_agreement import BoxAgreement, compare_boxes

seeds = st.integers(0, 10**6)


def greedy(ours, theirs):
    """One image's agreement as loops over lists of six."""

    def iou(a, b):
        w, h = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
        shared = max(w, 0) * max(h, 0)
        return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)

    ours, theirs = ([x for x in side if x[5] >= 0 and x[2] > x[0] and x[3] > x[1]] for side in (ours, theirs))
    pairs = sorted(
        ((iou(a, b), i, j) for i, a in enumerate(ours) for j, b in enumerate(theirs) if a[5] == b[5]), reverse=True
    )
    used, hits = (set(), set()), 0.0
    for near, i, j in pairs:
        if near >= 0.5 and i not in used[0] and j not in used[1]:
            used[0].add(i)
            used[1].add(j)
            hits += 2 * ours[i][4] * theirs[j][4]
    weight = sum(x[4] ** 2 for x in (*ours, *theirs))
    return hits / weight if weight else 1.0


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_loops(seed):
    one, _, other = drawn("boxes", 4, seed)
    expected = [greedy(a, b) for a, b in zip(one.pred.double().tolist(), other.pred.double().tolist(), strict=True)]
    assert compare_boxes(one.pred, other.pred).agreement.tolist() == pytest.approx(expected, abs=1e-6)


@given(seeds, st.booleans())
@settings(max_examples=30, deadline=None)
def test_order_does_not_matter_and_the_same_boxes_agree_wholly(seed, ties):
    one, _, other = drawn("boxes", 5, seed)
    if ties:
        one.pred[..., 4] = one.pred[..., 4].round()
    order = torch.randperm(one.pred.shape[1], generator=torch.Generator().manual_seed(seed))
    same = compare_boxes(one.pred, one.pred[:, order])
    assert same.agreement.tolist() == pytest.approx([1.0] * 5, abs=1e-12)
    assert same.max_difference.max() == 0 and same.total_difference.max() == 0
    forth, back = compare_boxes(one.pred, other.pred), compare_boxes(other.pred[:, order], one.pred)
    assert torch.allclose(forth.agreement, back.agreement, atol=1e-9)


def test_twins_are_matched_by_their_scores():
    """Two boxes at one place with unlike scores, in either order: what a detector without suppression may say."""
    twins = torch.tensor([[[0.0, 0, 4, 4, 0.9, 0], [0.0, 0, 4, 4, 0.2, 0]]])
    assert compare_boxes(twins, twins.flip(1)).agreement.item() == pytest.approx(1)


def test_by_hand():
    a = torch.tensor([[[0.0, 0, 4, 4, 0.8, 0], [8.0, 8, 9, 9, 0.6, 1]]])
    b = torch.tensor([[[0.0, 0, 4, 3, 0.5, 0], [8.0, 8, 9, 9, 0.6, 2]]])
    found = compare_boxes(a, b)
    assert found.agreement.item() == pytest.approx(2 * 0.4 / (0.64 + 0.36 + 0.25 + 0.36))
    assert found.max_difference.item() == pytest.approx(0.3) and found.total_difference.item() == pytest.approx(0.3)
    assert found.total_iou.item() == pytest.approx(0.75) and found.pairs.item() == 1


def test_nothing_agrees_with_nothing_and_with_nothing_else():
    none, box = torch.tensor([[[0.0, 0, 0, 0, 0, -1]]]), torch.tensor([[[0.0, 0, 4, 4, 0.8, 0]]])
    assert compare_boxes(none, none).agreement.item() == 1
    assert compare_boxes(none, box).agreement.item() == compare_boxes(box, none).agreement.item() == 0
    assert (
        compare_boxes(none[:, :0], box).agreement.item() == 0 and compare_boxes(none[:, :0], none).agreement.item() == 1
    )
    assert compare_boxes(box * float("nan"), box).agreement.item() == 0


def test_a_tail_of_weak_boxes_hardly_counts_and_other_images_do():
    one, _, _ = drawn("boxes", 1, 3)
    strong = torch.tensor([[[0.0, 0, 4, 4, 0.8, 0]]])
    tail = torch.rand(1, 60, 6, generator=torch.Generator().manual_seed(0)) * 4
    tail[..., 2:4] += tail[..., :2]
    tail[..., 4], tail[..., 5] = 0.02, 1
    assert compare_boxes(strong, torch.cat((strong, tail), 1)).agreement.item() > 0.97
    one, batch, _ = drawn("boxes", 40, 3)
    metric = BoxAgreement(classes=CLASSES)
    metric.update(one, batch, type(one)(pred=one.pred.roll(1, 0)))
    figure = metric.compute()["agreement"]
    assert figure.value < 0.2 and figure.n == 40


def test_what_the_metric_says_is_the_mean_and_the_largest_over_images():
    one, batch, other = drawn("boxes", 9, 4)
    metric = BoxAgreement(classes=CLASSES)
    metric.update(one, batch, other)
    found, figure = compare_boxes(one.pred, other.pred), metric.compute()["agreement"]
    assert figure.value == pytest.approx(found.agreement.mean().item())
    assert figure.extra["max_difference"] == pytest.approx(found.max_difference.max().item())
    assert figure.extra["mean_difference"] == pytest.approx((found.total_difference.sum() / found.pairs.sum()).item())
    assert figure.extra["mean_iou"] == pytest.approx((found.total_iou.sum() / found.pairs.sum()).item())
    broken = BoxAgreement(classes=CLASSES)
    broken.update(type(one)(pred=one.pred * float("inf")), batch, other)
    assert broken.compute()["agreement"].extra["max_difference"] == 1

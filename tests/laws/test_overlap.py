"""What must hold of every segmentation: void is nobody's, parts add up, order and names of processes don't matter."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.features import drawn

from stillroom.metrics._ratios import ratios
from stillroom.metrics.boundary import Boundary
from stillroom.metrics.overlap import Overlap, pixel_counts
from stillroom.metrics.pixel_agreement import PixelAgreement
from stillroom.types import Batch, Output

CLASSES = ("sky", "road", "car")
KINDS = (Overlap, Boundary, PixelAgreement)
seeds = st.integers(0, 2**31)


def case(seed, images=6):
    logits = drawn(images, 3, 8, 8, seed=seed).repeat_interleave(2, 2).repeat_interleave(2, 3)
    true = torch.randint(-1, 3, (images, 16, 16), generator=torch.Generator().manual_seed(seed))
    return logits, torch.where(drawn(images, 16, 16, seed=seed + 1) > 0, logits.argmax(1), true)


def update(metric, logits, true, reference):
    batch = Batch(images=torch.zeros(len(true), 1, 16, 16), target=true, keys=torch.arange(len(true)))
    metric.update(Output(pred=logits), batch, Output(pred=reference))
    return metric


def said(metric):
    return {name: figure.as_dict() for name, figure in metric.compute().items()}


@pytest.mark.parametrize("kind", KINDS)
@given(seeds, st.lists(st.integers(0, 6), max_size=3))
@settings(max_examples=8)
def test_a_whole_equals_its_pieces_in_any_order(kind, seed, cuts):
    (logits, true), (reference, _) = case(seed), case(seed + 7)
    whole = said(update(kind(classes=CLASSES), logits, true, reference))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    ends, total = [0, *sorted(cuts), 6], kind(classes=CLASSES)
    for start, end in pairwise(ends):
        part = order[start:end]
        if len(part):
            total.merge(update(kind(classes=CLASSES), logits[part], true[part], reference[part]).state())
    assert json.dumps(said(total), sort_keys=True) == json.dumps(whole, sort_keys=True) and whole


@given(seeds)
@settings(max_examples=20)
def test_what_is_said_of_void_does_not_matter(seed):
    (logits, true), (other, _) = case(seed), case(seed + 7)
    mixed = torch.where((true < 0)[:, None], other, logits)
    for kind in (Overlap, Boundary):
        one, two = (said(update(kind(classes=CLASSES), x, true, other)) for x in (logits, mixed))
        assert one == two


@given(seeds)
@settings(max_examples=20)
def test_right_everywhere_is_one_and_all_figures_are_shares(seed):
    logits, true = case(seed)
    perfect = torch.nn.functional.one_hot(true.clamp_min(0), 3).movedim(-1, 1).double()
    for kind in KINDS:
        figures = update(kind(classes=CLASSES), perfect, true, perfect).compute()
        assert all(f.value == 1 for f in figures.values() if isinstance(f.value, float))
        for figure in update(kind(classes=CLASSES), logits, true, perfect).compute().values():
            if isinstance(figure.value, float):
                low, high = figure.ci95
                assert 0 <= low <= figure.value <= high <= 1 and high > low


def test_all_void_says_nothing_but_agreement_does():
    logits, true = case(0)
    void = torch.full_like(true, -1)
    for kind in (Overlap, Boundary):
        metric = update(kind(classes=CLASSES), logits, void, logits)
        assert metric.compute() == {} and metric.value() == 0
    assert update(PixelAgreement(classes=CLASSES), logits, void, logits).compute()["agreement"].value == 1


def test_what_is_not_a_number_is_never_right():
    logits, true = case(1)
    nothing = torch.full_like(logits, float("nan"))
    figures = update(Overlap(classes=CLASSES), nothing, true, nothing).compute()
    assert figures["miou"].value == figures["pixel_accuracy"].value == 0
    assert pixel_counts(torch.full_like(true, -1), true, 3)[..., 2].sum() == (true >= 0).sum()
    agreement = update(PixelAgreement(classes=CLASSES), nothing, true, nothing).compute()["agreement"]
    assert agreement.value == 0 and agreement.extra["max_difference"] == 1
    json.dumps(agreement.as_dict(), allow_nan=False)


def test_a_class_that_nobody_has_is_left_out():
    true = torch.zeros(2, 16, 16, dtype=torch.int64)
    right = torch.tensor([3.0, 0, 0]).view(1, 3, 1, 1).expand(2, 3, 16, 16)
    figures = update(Overlap(classes=CLASSES), right, true, right).compute()
    assert figures["iou"].value == {"sky": 1.0} and figures["iou"].extra["n_by_class"] == {"sky": 2}


def test_the_value_is_the_figures():
    logits, true = case(2)
    metric = update(Overlap(classes=CLASSES), logits, true, logits)
    assert metric.value() == metric.compute()["miou"].value > 0


@given(seeds, st.integers(2, 9), st.integers(1, 4))
@settings(max_examples=20)
def test_images_that_are_all_alike_leave_no_doubt(seed, images, classes):
    row = drawn(1, classes, seed=seed).abs() + 0.1
    found = ratios((row / 2).expand(images, -1), row.expand(images, -1))
    ends, each = found.intervals()
    assert found.value == pytest.approx(0.5) and ends == pytest.approx((0.5, 0.5))
    assert all(both == pytest.approx((0.5, 0.5)) for both in each)


def test_an_interval_covers_what_other_images_would_have_said():
    """Of 200 samples of 40 images the intervals hold the true ratio about 95 % of the time."""
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(200):
        wholes = torch.randint(50, 150, (40, 1), generator=generator).double()
        parts = wholes * torch.rand(40, 1, generator=generator, dtype=torch.float64)
        low, high = ratios(parts, wholes).intervals()[0]
        held += low <= 0.5 <= high
    assert 178 <= held <= 198

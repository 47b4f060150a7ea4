"""Paired tests of two networks on the same images: equal to scipy's, right as often as they say, blind to the order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit.answers import CLASSES, drawn
from scipy.stats import binomtest

from stillroom.evaluation.evaluate import evaluate
from stillroom.metrics._paired import mcnemar, paired_bootstrap
from stillroom.metrics.accuracy import Accuracy
from stillroom.metrics.average_precision import AveragePrecision
from stillroom.metrics.overlap import Overlap
from stillroom.metrics.retrieval import Retrieval
from stillroom.tasks.classification import Classification
from stillroom.types import Batch, Output


def pair(n, b, c, both=5):
    """Two networks, right together `both` times, and `b` and `c` times alone."""
    ours, theirs = (torch.zeros(n, dtype=torch.bool) for _ in range(2))
    ours[: both + b] = True
    theirs[:both] = theirs[both + b : both + b + c] = True
    return ours, theirs


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_binomial_test_of_the_images_that_differ(b, c):
    found = mcnemar(*pair(100, b, c))
    expected = binomtest(min(b, c), b + c).pvalue if b + c else 1.0
    assert found.extra["p"] == pytest.approx(expected, rel=1e-12)
    assert found.value == pytest.approx((b - c) / 100) and (found.extra["better"], found.extra["worse"]) == (b, c)
    assert found.ci95[0] <= found.value <= found.ci95[1]
    other = mcnemar(*reversed(pair(100, b, c)))
    assert other.value == -found.value and other.extra["p"] == found.extra["p"]
    assert other.ci95 == pytest.approx((-found.ci95[1], -found.ci95[0]))


def test_the_chest_x_rays_that_overlapping_intervals_hid():
    """41 images against 11 of 624: p = 4e-5, though the two Wilson intervals overlap."""
    found = mcnemar(*pair(624, 41, 11, both=500))
    assert found.extra["p"] == pytest.approx(3.6e-5, rel=0.05) and found.ci95[0] > 0.02


def test_of_equal_networks_one_in_twenty_intervals_leaves_out_zero():
    chance = np.random.default_rng(0)
    inside = rejected = 0
    for _ in range(2000):
        ours, theirs = (torch.from_numpy(chance.random(200) < 0.8) for _ in range(2))
        found = mcnemar(ours, theirs)
        inside += found.ci95[0] <= 0 <= found.ci95[1]
        rejected += found.extra["p"] < 0.05
    assert 0.93 <= inside / 2000 <= 0.97 and rejected <= 0.05 * 2000


def test_a_paired_bootstrap_knows_what_both_share():
    """Both figures vary by 0.05 with the images, their difference by nothing."""
    chance = np.random.default_rng(1)
    scores = chance.random(40)

    def mean(of):
        return lambda weights: weights @ of / weights.sum(1)

    keys = np.arange(40)
    found = paired_bootstrap(mean(scores + 0.01), mean(scores), keys)
    assert found.value == pytest.approx(0.01) and found.ci95 == pytest.approx((0.01, 0.01))
    assert found.extra["p"] <= 0.001
    same = paired_bootstrap(mean(scores), mean(scores), keys)
    assert same.value == 0 and same.extra["p"] == 1
    assert paired_bootstrap(mean(scores[:1]), mean(scores[:1]), keys[:1]) is None


def test_a_paired_bootstrap_rejects_equal_figures_seldom():
    chance = np.random.default_rng(2)
    rejected = 0
    for trial in range(300):
        ours, theirs = chance.normal(size=(2, 50))
        found = paired_bootstrap(
            lambda weights, of=ours: weights @ of / 50,
            lambda weights, of=theirs: weights @ of / 50,
            np.arange(50) + trial,
        )
        rejected += found.extra["p"] < 0.05
    assert rejected <= 0.09 * 300


@pytest.mark.parametrize(
    ("kind", "metric"),
    [("classes", Accuracy), ("boxes", AveragePrecision), ("pixels", Overlap), ("vector", Retrieval)],
)
def test_every_headline_metric_has_its_difference(kind, metric):
    """That of the two figures, in any order of the images; 0 of a network to itself."""
    better, batch, worse = drawn(kind, 24, 3)
    found = []
    for order in (torch.arange(24), torch.arange(24).flip(0)):
        ours, theirs = metric(classes=CLASSES), metric(classes=CLASSES)
        for one, output in ((ours, better), (theirs, worse)):
            one.update(Output(pred=output.pred[order]), rows(batch, order))
        found.append(ours.paired(theirs))
        first = next(iter(ours.compute().values())).value - next(iter(theirs.compute().values())).value
        assert found[-1].value == pytest.approx(first, abs=1e-9)
        assert ours.paired(ours).value == 0 and ours.paired(ours).extra["p"] == 1
    assert found[0].value == pytest.approx(found[1].value, abs=1e-12)
    assert found[0].extra == found[1].extra and found[0].ci95 == pytest.approx(found[1].ci95)


def rows(batch, order):
    def of(target):
        return {name: of(value) for name, value in target.items()} if isinstance(target, dict) else target[order]

    return Batch(images=batch.images[order], target=of(batch.target), keys=batch.keys[order])


def test_an_evaluation_has_the_gain_of_all_but_the_baseline():
    better, batch, worse = drawn("classes", 60, 5)
    networks = {"student": better, "baseline": worse, "onnx-8": better}
    networks = {name: (lambda images, said=said: Output(pred=said.pred)) for name, said in networks.items()}
    found = evaluate(networks, [batch], Classification(), CLASSES, baseline="baseline").figures
    assert "gain" not in found["baseline"] and found["student"]["gain"] == found["onnx-8"]["gain"]
    difference = found["student"]["accuracy"].value - found["baseline"]["accuracy"].value
    assert found["student"]["gain"].value == pytest.approx(difference, abs=1e-12)
    assert "gain" not in evaluate(networks, [batch], Classification(), CLASSES).figures["student"]

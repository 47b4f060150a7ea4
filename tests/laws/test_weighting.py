"""Weights over a run, and losses that pull equally hard."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit import training

from stillroom.training.loss_weights import EVERY, KEEP, LossBalancer, Weight

shares = st.floats(0, 1)


@given(st.floats(0, 1e4), shares)
def test_a_constant_is_constant(value, progress):
    assert Weight(value).at(progress) == pytest.approx(value, rel=1e-12)


@given(st.floats(1e-3, 0.999), shares)
def test_it_climbs_linearly_from_nothing(warmup, progress):
    assert Weight(3.0, warmup_fraction=warmup).at(0.0) == 0
    assert Weight(3.0, warmup_fraction=warmup).at(progress) == pytest.approx(3 * min(1, progress / warmup))


@given(st.floats(0, 0.99), shares)
def test_it_falls_as_a_cosine_to_nothing(decay, progress):
    weight = Weight(3.0, decay_start=decay)
    assert weight.at(1.0) == pytest.approx(0, abs=1e-9)
    if progress <= decay:
        assert weight.at(progress) == 3.0
    else:
        expected = 1.5 * (1 + math.cos(math.pi * (progress - decay) / (1 - decay)))
        assert weight.at(progress) == pytest.approx(expected)


def two(scale, balanced=True):
    """A weighting of two quadratic losses of x; the second has `scale` times the gradient."""
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    weighting = LossBalancer({"task": Weight(1.0), "other": Weight(0.5)}, balanced=balanced)
    return weighting, x, {"task/a": x.square().sum(), "other/b": scale * x.square().sum()}


@given(st.floats(1e-3, 1e3))
def test_balanced_a_weight_is_a_ratio_of_gradients(scale):
    weighting, x, terms = two(scale)
    weighting.measure(terms, [x])
    weights = weighting.at(0.5)
    pulls = [
        weights[name.partition("/")[0]] * torch.autograd.grad(term, x, retain_graph=True)[0].norm()
        for name, term in terms.items()
    ]
    assert float(pulls[1] / pulls[0]) == pytest.approx(0.5, rel=1e-4)


def test_a_running_mean_is_kept():
    weighting, x, terms = two(1.0)
    weighting.measure(terms, [x])
    first = weighting.lengths.clone()
    weighting.measure({"task/a": terms["task/a"], "other/b": 3 * terms["other/b"]}, [x])
    assert weighting.lengths[0].item() == pytest.approx(first[0].item())
    assert weighting.lengths[1].item() == pytest.approx(first[1].item() * (KEEP + 3 * (1 - KEEP)))


def test_a_length_that_comes_late_or_not_finite_begins_the_mean_or_leaves_it():
    weighting, x, terms = two(0.0)
    weighting.measure(terms, [x])
    assert weighting.lengths[1] == 0
    for scale in (4.0, float("nan"), float("inf")):
        weighting.measure({"task/a": terms["task/a"], "other/b": scale * terms["task/a"]}, [x])
        assert weighting.lengths[1].item() == pytest.approx(4 * weighting.lengths[0].item())


def test_a_loss_without_gradient_changes_nothing():
    weighting, x, terms = two(0.0)
    weighting.measure(terms, [x])
    assert all(math.isfinite(weight) for weight in weighting.at(0.5).values())
    plain, x, terms = two(5.0, balanced=False)
    plain.measure(terms, [x])
    assert plain.at(0.5) == {"task": 1.0, "other": 0.5} and not plain.lengths.any()


@given(st.floats(1e-3, 1e3), st.booleans())
def test_the_total_is_the_sum_of_weight_times_term(scale, balanced):
    weighting, x, terms = two(scale, balanced=balanced)
    weighting.measure(terms, [x])
    expected = sum(weighting.at(0.5)[name.partition("/")[0]] * term.item() for name, term in terms.items())
    assert weighting.total(terms, 0.5).item() == pytest.approx(expected, rel=1e-5)


def test_it_is_measured_now_and_then_leaves_gradients_alone_and_is_saved(monkeypatch):
    one, measured = training.learner(), []
    one.weighting.balanced = True
    measure = one.weighting.measure
    monkeypatch.setattr(one.weighting, "measure", lambda *what: (measure(*what), measured.append(len(measured))))
    state, told = training.steps(one, training.replace(training.TRAINING, steps=EVERY + 3, grad_accum_steps=2))
    assert len(measured) == 2  # at steps 0 and EVERY, once for both micro-batches
    assert told[-1].weights["hinton"] != 0.9 and told[-1].weights["task"] == 1.0
    assert told[-1].loss == pytest.approx(sum(told[-1].weights[n.split("/")[0]] * v for n, v in told[-1].terms.items()))
    assert torch.equal(state.parts()["learner"]["weighting.lengths"], one.weighting.lengths)


def test_schedules_reach_the_loop():
    one = training.learner()
    one.weighting.plans["hinton"] = Weight(2.0, warmup_fraction=0.5)
    _, told = training.steps(one)
    steps = len(told)
    assert [step.weights["hinton"] for step in told] == pytest.approx([2 * min(1, 2 * n / steps) for n in range(steps)])

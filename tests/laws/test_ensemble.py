"""Properties of several teachers as one, whatever their numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stillroom.models.network import Network
from stillroom.teachers.ensemble import Ensemble
from stillroom.teachers.frozen import FrozenTeacher

seeds = st.integers(0, 2**31)
combines = st.sampled_from(["logits", "probabilities"])


def drawn(count, seed, scale=3.0, output_kind="classes"):
    """Networks of 5 answers each, and images."""
    torch.manual_seed(seed)
    made = []
    for _ in range(count):
        layer = nn.Linear(12, 5)
        with torch.no_grad():
            layer.weight.mul_(scale * 5)
        made.append(Network(nn.Sequential(nn.Flatten(), layer), classes=5, output_kind=output_kind))
    return made, torch.rand(6, 3, 2, 2)


def said(networks, images, **more):
    return FrozenTeacher(Ensemble(networks, **more)).predict(images).pred


@given(seeds, st.integers(1, 5), combines)
@settings(max_examples=30)
def test_identical_teachers_are_one(seed, count, combine):
    (one,), images = drawn(1, seed)
    alone = FrozenTeacher(one).predict(images).pred
    assert torch.allclose(said([one] * count, images, combine=combine), alone, rtol=1e-6, atol=1e-5)
    together = said([one] * count, images, combine=combine).softmax(1)
    assert torch.allclose(together, alone.softmax(1), rtol=0, atol=1e-6)


@given(seeds, combines, st.permutations(range(4)))
@settings(max_examples=30)
def test_their_order_does_not_matter(seed, combine, order):
    networks, images = drawn(4, seed)
    mixed = said([networks[i] for i in order], images, combine=combine)
    assert torch.allclose(mixed, said(networks, images, combine=combine), rtol=1e-5, atol=1e-5)


@given(seeds, combines, st.permutations(range(5)))
@settings(max_examples=30)
def test_classes_in_another_order_with_a_map_change_nothing(seed, combine, order):
    """The member's k-th output is moved to place order[k], and the map says so."""
    networks, images = drawn(3, seed)
    moved, _ = drawn(3, seed)
    layer = moved[1].module[1]
    with torch.no_grad():
        layer.weight[list(order)], layer.bias[list(order)] = layer.weight.clone(), layer.bias.clone()
    maps = [None, tuple(order), None]
    plain = said(networks, images, combine=combine)
    assert torch.allclose(said(moved, images, maps=maps, combine=combine), plain, rtol=1e-5, atol=1e-5)


@given(seeds, st.floats(0.5, 8))
@settings(max_examples=30)
def test_the_mean_of_logits_is_the_geometric_mean_at_every_temperature(seed, temperature):
    networks, images = drawn(3, seed)
    mean = torch.stack(
        [(FrozenTeacher(one).predict(images).pred / temperature).log_softmax(1) for one in networks]
    ).mean(0)
    found = said(networks, images).div(temperature).softmax(1)
    assert torch.allclose(found, mean.softmax(1), rtol=0, atol=1e-6)


@given(seeds)
@settings(max_examples=30)
def test_the_mean_of_probabilities_lies_between_the_members(seed):
    networks, images = drawn(3, seed)
    each = torch.stack([FrozenTeacher(one).predict(images).pred.softmax(1) for one in networks])
    found = said(networks, images, combine="probabilities").softmax(1)
    assert (found >= each.amin(0) - 1e-6).all() and (found <= each.amax(0) + 1e-6).all()
    assert torch.allclose(found, each.mean(0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_identical_vectors_keep_their_direction(count):
    (one,), images = drawn(1, 0, output_kind="vector")
    alone = torch.nn.functional.normalize(FrozenTeacher(one).predict(images).pred)
    assert torch.allclose(said([one] * count, images), alone, rtol=0, atol=1e-6)

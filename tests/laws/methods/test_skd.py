"""What pair-wise structure distillation must not notice, and what it must."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.features import drawn, ready, teaches

from stillroom.errors import StillroomError
from stillroom.methods.skd import SKD, affinity, skd_loss

seeds = st.integers(0, 2**31)


@given(seeds, st.floats(1e-3, 1e3))
@settings(max_examples=30)
def test_scale_and_rotation_of_features_do_not_matter(seed, scale):
    s, t = drawn(3, 5, 4, 4, seed=seed), drawn(3, 7, 4, 4, seed=seed + 1)
    turn = torch.linalg.qr(drawn(5, 5, seed=seed + 2)).Q
    expected = skd_loss(s, t).item()
    turned = torch.einsum("dc,bchw->bdhw", turn, s) * scale
    assert expected > 0 and skd_loss(turned, t).item() == pytest.approx(expected, rel=1e-6)
    assert skd_loss(turned, s).item() == pytest.approx(0, abs=1e-12)


@given(seeds)
@settings(max_examples=20)
def test_affinities_are_cosines(seed):
    found = affinity(drawn(3, 5, 4, 3, seed=seed))
    assert found.shape == (3, 12, 12) and found.abs().max() <= 1 + 1e-12
    assert torch.allclose(found, found.mT) and torch.allclose(found.diagonal(dim1=1, dim2=2), found.new_ones(3, 12))


def test_the_largest_value_is_reached_by_opposites():
    s, t = torch.ones(1, 1, 1, 2), torch.tensor([[[[1.0, -1.0]]]])
    assert skd_loss(s, t).item() == pytest.approx(2.0)  # half of the pairs are of a place with itself


def test_nodes_are_means_of_patches():
    s, t = drawn(2, 3, 8, 8), drawn(2, 4, 8, 8, seed=1)
    patches = [x.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean((3, 5)) for x in (s, t)]
    assert skd_loss(s, t, 4).item() == pytest.approx(skd_loss(*patches).item(), rel=1e-9)
    assert skd_loss(s, t, 8) != skd_loss(s, t, 4)


def test_gradient_half_precision_one_image_and_none():
    s, t = drawn(2, 3, 3, 3).requires_grad_(), drawn(2, 4, 3, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x: skd_loss(x, t), (s,))
    for dtype in (torch.float16, torch.bfloat16):
        assert skd_loss(s.to(dtype) * 1e3, t.to(dtype)).isfinite()
    dead = torch.zeros(2, 3, 3, 3, requires_grad=True)
    skd_loss(dead, t).backward()
    assert dead.grad.isfinite().all()
    none = torch.zeros(0, 3, 4, 4, requires_grad=True)
    skd_loss(none, t[:0]).backward()
    assert skd_loss(none, t[:0]) == 0 and none.grad.shape == none.shape


def test_tokens_maps_and_sizes_mix():
    s, t = [drawn(4, 17, 3), drawn(4, 2, 8, 8)], [drawn(4, 5, 8, 8, seed=1), drawn(4, 10, 7, seed=1)]
    method = ready(SKD(), s, t)
    assert teaches(method, s, t) and teaches(method, [x[:1] for x in s], [x[:1] for x in t])


def test_what_is_refused():
    with pytest.raises(ValueError, match="nodes must be at least 2, got 1"):
        SKD(nodes=1)
    with pytest.raises(StillroomError, match="SR-M330"):
        ready(SKD(), [drawn(2, 3)], [drawn(2, 5)])

"""What channel-wise distillation must not notice, and what it must."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.features import drawn, ready, teaches

from stillroom.errors import StillroomError
from stillroom.methods.cwd import CWD, cwd_loss, spatial_log_softmax
from stillroom.types import Batch, Output

seeds = st.integers(0, 2**31)
temperatures = st.floats(0.2, 8.0)


@given(seeds, temperatures)
@settings(max_examples=30)
def test_each_channel_is_a_distribution_over_places(seed, temperature):
    shares = spatial_log_softmax(drawn(3, 5, 4, 6, seed=seed) * 10, temperature).exp()
    assert shares.shape == (3, 5, 24) and shares.min() >= 0
    assert torch.allclose(shares.sum(2), torch.ones(3, 5, dtype=shares.dtype), atol=1e-12)


@given(seeds, temperatures)
@settings(max_examples=30)
def test_zero_at_equality_and_a_channels_level_does_not_matter(seed, temperature):
    s, t = drawn(3, 5, 4, 4, seed=seed), drawn(3, 5, 4, 4, seed=seed + 1)
    level = drawn(3, 5, 1, 1, seed=seed + 2)
    assert cwd_loss(s, s, temperature).item() == pytest.approx(0, abs=1e-12)
    assert cwd_loss(t + level, t, temperature).item() == pytest.approx(0, abs=1e-9)
    assert cwd_loss(s, t, temperature) > 0
    assert cwd_loss(s + level, t, temperature).item() == pytest.approx(cwd_loss(s, t, temperature).item(), rel=1e-6)


@given(seeds)
@settings(max_examples=20)
def test_the_order_of_places_images_and_channels_does_not_matter(seed):
    s, t = drawn(4, 3, 1, 16, seed=seed), drawn(4, 3, 1, 16, seed=seed + 1)
    for axis in (0, 1, 3):
        order = torch.randperm(s.shape[axis], generator=torch.Generator().manual_seed(seed))
        mixed = cwd_loss(s.index_select(axis, order), t.index_select(axis, order))
        assert mixed.item() == pytest.approx(cwd_loss(s, t).item(), rel=1e-9)


def test_gradient_half_precision_one_image_and_none():
    s, t = drawn(2, 3, 3, 3).requires_grad_(), drawn(2, 3, 3, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x: cwd_loss(x, t, 2.0), (s,))
    for dtype in (torch.float16, torch.bfloat16):
        assert cwd_loss(s.to(dtype) * 1e3, t.to(dtype) * 1e3, 0.5).isfinite()
    assert cwd_loss(s.half(), t.half()).item() == pytest.approx(cwd_loss(s, t).item(), rel=0.02)
    none = torch.zeros(0, 3, 4, 4, requires_grad=True)
    cwd_loss(none, torch.zeros(0, 3, 4, 4)).backward()
    assert cwd_loss(none, none) == 0 and none.grad.shape == none.shape


def test_tokens_maps_widths_and_sizes_mix():
    s, t = [drawn(4, 17, 3), drawn(4, 2, 8, 8)], [drawn(4, 5, 8, 8, seed=1), drawn(4, 10, 2, seed=1)]
    method = ready(CWD(), s, t)
    assert [type(part).__name__ for part in method.align] == ["Conv2d", "Identity"]
    assert teaches(method, s, t) and teaches(method, [x[:1] for x in s], [x[:1] for x in t])


def test_logits_of_two_segmenters_at_the_authors_weight():
    method = CWD(of="logits")
    assert (method.default_taps, method.weight) == ("pred", 3.0) and (CWD().default_taps, CWD().weight) == (
        "last",
        50.0,
    )
    s, t = Output(pred=drawn(2, 4, 6, 6).requires_grad_()), Output(pred=drawn(2, 4, 6, 6, seed=1))
    method.setup(s, t)
    batch = Batch(images=torch.zeros(2, 1, 6, 6), target=torch.zeros(2, 6, 6), keys=torch.arange(2))
    found = method.loss(s, t, batch, 0.5)["cwd"]
    found.backward()
    assert torch.equal(found, cwd_loss(s.pred, t.pred)) and s.pred.grad.abs().sum() > 0


def test_what_is_refused():
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        CWD(temperature=0.0)
    with pytest.raises(ValueError, match="of must be one of features, logits, got taps"):
        CWD(of="taps")
    with pytest.raises(StillroomError, match="SR-M330"):
        ready(CWD(), [drawn(2, 3)], [drawn(2, 5)])
    with pytest.raises(StillroomError, match="every class and pixel") as caught:
        CWD(of="logits").setup(Output(pred=drawn(2, 3)), Output(pred=drawn(2, 3)))
    assert caught.value.code == "SR-M330"

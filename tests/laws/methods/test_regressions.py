"""What is special to the losses that make the teacher's map of the student's: fitnet, mgd, vid, ofd, reviewkd."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from kit.features import charge, drawn, ready

from stillroom.methods import ofd
from stillroom.methods._errors import TapCountMismatch
from stillroom.methods.fitnet import FitNet, hint_loss
from stillroom.methods.mgd import MGD, mgd_loss, random_mask
from stillroom.methods.ofd import OFD, margin, negatives, ofd_loss
from stillroom.methods.reviewkd import Fusion, ReviewKD, hcl_loss
from stillroom.methods.vid import MIN_VARIANCE, VID, vid_loss

seeds = st.integers(0, 2**31)


@given(seeds, st.integers(1, 4), st.integers(1, 6))
def test_a_hint_is_the_mean_square_and_mgd_the_sum_over_all_but_images(seed, channels, side):
    s, t = drawn(2, channels, side, side, seed=seed), drawn(2, channels, side, side, seed=seed + 1)
    assert hint_loss(s, t).item() == pytest.approx((s - t).square().mean().item(), rel=1e-12)
    assert mgd_loss(s, t).item() == pytest.approx((s - t).square().sum().item() / 2, rel=1e-12)


def test_tokens_are_maps_and_what_stands_before_them_does_not_count():
    s, t = drawn(2, 5, 4, 4), drawn(2, 5, 4, 4, seed=1)
    tokens = torch.cat([drawn(2, 2, 5, seed=2) * 100, s.flatten(2).transpose(1, 2)], 1)
    assert hint_loss(tokens, t) == hint_loss(s, t) and hint_loss(t, tokens) == hint_loss(t, s)


def test_other_sizes_are_brought_to_the_teacher_s():
    s, t = drawn(2, 3, 4, 4), drawn(2, 3, 2, 2, seed=1)
    pooled = s.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean((3, 5))
    assert hint_loss(s, t).item() == pytest.approx((pooled - t).square().mean().item(), rel=1e-12)
    assert hint_loss(torch.ones_like(t), torch.ones_like(s)) == 0
    fine = drawn(2, 10, 3, seed=2)  # a class token and 9 places
    assert hint_loss(s.flatten(2).transpose(1, 2), fine).isfinite()


def test_unequal_numbers_of_taps_are_refused_and_one_tap_may_have_two_teachers():
    """Two hints cost what they cost apart, though both regressors read the same feature."""
    with pytest.raises(TapCountMismatch):
        ready(FitNet(), [drawn(2, 3)] * 2, [drawn(2, 3)])
    with pytest.raises(TapCountMismatch):
        FitNet().setup(None, None)
    s, t = drawn(4, 3, 4, 4), [drawn(4, 5, 4, 4, seed=1), drawn(4, 2, 2, 2, seed=2)]
    method = ready(FitNet(), [s, s], t)
    method.student_taps = ("s0", "s0")
    apart = [hint_loss(regress(s), one).item() for regress, one in zip(method.regress, t, strict=True)]
    assert charge(method, [s], t).item() == pytest.approx(sum(apart), rel=1e-12)


@pytest.mark.parametrize("over", ["channels", "places"])
@pytest.mark.parametrize("masked", [0.15, 0.5, 0.65])
def test_the_kept_share_is_the_expected_one(over, masked):
    """Within three standard errors of 1 - masked; of a whole channel or place at a time."""
    torch.manual_seed(0)
    kept = random_mask(torch.zeros(100, 400, 20, 20), masked, over)
    assert kept.shape == ((100, 400, 1, 1) if over == "channels" else (100, 1, 20, 20))
    assert set(kept.unique().tolist()) == {0, 1}
    assert abs(kept.mean().item() - (1 - masked)) <= 3 * math.sqrt(masked * (1 - masked) / kept.numel())
    assert random_mask(torch.ones(2, 3, 4, 5), 0.0, over).min() == 1


def test_mgd_draws_with_the_seed_and_does_not_read_what_is_masked():
    """Without its channels a student gives what the biases of the generator give, and nothing depends on it."""
    s, t = drawn(4, 3, 4, 4).requires_grad_(), drawn(4, 5, 4, 4, seed=1)
    method = ready(MGD(masked=0.5), [s.detach()], [t])
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(charge(method, [s], [t]).item())
    assert found[0] == found[1] != found[2]
    charge(ready(MGD(masked=1 - 1e-9), [s.detach()], [t]), [s], [t]).backward()
    assert s.grad.abs().max() == 0


@given(seeds, st.floats(0.01, 20))
def test_vid_is_least_where_guess_and_teacher_agree(seed, scale):
    """Half the mean log variance, negative below 1; the best variance of a channel is its mean square error."""
    t, guess = drawn(2, 4, 3, 3, seed=seed), drawn(2, 4, 3, 3, seed=seed + 1)
    variance = (drawn(4, seed=seed + 2).abs() + 0.1) * scale
    least = vid_loss(t, t, variance).item()
    assert least == pytest.approx(variance.log().mean().item() / 2, rel=1e-9, abs=1e-12)
    assert vid_loss(guess, t, variance) > least
    best = (t - guess).square().mean((0, 2, 3)).requires_grad_()
    (grad,) = torch.autograd.grad(vid_loss(guess, t, best), best)
    assert grad.abs().max() < 1e-10


@pytest.mark.parametrize("variance", [2e-5, 0.1, 5.0, 100.0])
def test_vid_begins_with_one_variance_for_every_channel(variance):
    s, t = drawn(2, 3, 4, 4), drawn(2, 5, 4, 4, seed=1)
    method = ready(VID(variance=variance), [s], [t])
    assert torch.allclose(F.softplus(method.doubt[0]) + MIN_VARIANCE, torch.full((5,), variance).to(s), rtol=1e-5)


def test_vid_learns_its_variances():
    """Channels that can't be guessed end with the larger variance, about that of their noise, which is 9."""
    s = drawn(64, 2, 2, 2).abs()
    t = torch.cat([s.sum(1, keepdim=True).expand(-1, 8, -1, -1), 3 * drawn(64, 8, 2, 2, seed=1)], 1)
    method = ready(VID(), [s], [t])
    optimizer = torch.optim.Adam(method.parameters(), lr=0.03)
    for _ in range(200):
        optimizer.zero_grad()
        charge(method, [s], [t]).backward()
        optimizer.step()
    variance = F.softplus(method.doubt[0]) + MIN_VARIANCE
    assert variance[:8].max() < 0.5 and variance[8:].min() > 4 and variance[8:].max() < 12
    v = variance.detach()[:3].requires_grad_()
    assert torch.autograd.gradcheck(lambda v: vid_loss(drawn(2, 3, 2, 2), drawn(2, 3, 2, 2, seed=1), v), v)


@given(seeds, st.floats(0, 100))
def test_ofd_charges_nothing_below_a_negative_target_and_bounds_the_rest(seed, lower):
    """A student below it has no gradient: where the teacher is silent there is no telling how silent."""
    s, t = drawn(3, 4, 3, 3, seed=seed), drawn(3, 4, 3, 3, seed=seed + 1)
    m = margin(negatives(t))
    assert ofd_loss(t, t, m) == 0
    assert 0 < ofd_loss(s, t, m) <= (s - t.maximum(m.view(1, 4, 1, 1))).square().sum() / 3
    m = margin(negatives(-t.abs()))
    below = (-t.abs()).maximum(m.view(1, 4, 1, 1)).sub(lower).requires_grad_()
    loss = ofd_loss(below, -t.abs(), m)
    (grad,) = torch.autograd.grad(loss, below)
    assert loss == 0 and grad.abs().max() == 0


def test_one_element_in_each_of_ofd_s_cases():
    """Margin -1. Teacher positive: always charged. Below the margin: towards it, from above only."""
    m = torch.tensor([-1.0], dtype=torch.float64)

    def one(s, t):
        return ofd_loss(*(torch.full((1, 1, 1, 1), x, dtype=torch.float64) for x in (s, t)), m).item()

    assert [one(5, 2), one(-3, 2)] == [9, 25]
    assert [one(0, -0.5), one(-0.75, -0.5)] == [0.25, 0]
    assert [one(0, -7), one(-0.5, -7), one(-1.5, -7), one(-9, -7)] == [1, 0.25, 0, 0]
    t = torch.tensor([[[[1.0, -2.0]], [[3.0, 4.0]]], [[[-4.0, 0.0]], [[5.0, 0.0]]]])
    assert margin(negatives(t)).tolist() == [-3.0, 0.0]  # the mean of what is negative


def test_ofd_s_margin_is_that_of_all_processes(monkeypatch):
    """Sums and counts are added, so two halves of a batch, in two processes, have the margin of the whole."""
    s, t = drawn(6, 4, 3, 3), drawn(6, 4, 3, 3, seed=1) - 0.5
    method = ready(OFD(), [s], [t]).eval()
    whole = charge(method, [s], [t]).item()
    halves = [slice(2), slice(2, 6)]
    assert whole != pytest.approx(sum(charge(method, [s[i]], [t[i]]).item() for i in halves), rel=1e-3)
    found = 0.0
    for mine, other in (halves, halves[::-1]):
        monkeypatch.setattr(ofd, "all_reduce_sum", lambda x, other=other: x + negatives(t[other]))
        found += charge(method, [s[mine]], [t[mine]]).item() * len(s[mine]) / 6
    assert found == pytest.approx(whole, rel=1e-12)


def test_ofd_s_deepest_stage_counts_whole_and_each_before_it_half_as_much():
    s, t = [drawn(4, 3, 8 // n, 8 // n) for n in (1, 2, 4)], [drawn(4, 5, 8 // n, 8 // n, seed=1) for n in (1, 2, 4)]
    method = ready(OFD(), s, t)
    apart = [ofd_loss(adapt(x), y, margin(negatives(y))).item() for adapt, x, y in zip(method.adapt, s, t, strict=True)]
    assert charge(method, s, t).item() == pytest.approx(apart[0] / 4 + apart[1] / 2 + apart[2], rel=1e-9)


@given(seeds, st.integers(1, 9), st.floats(0.1, 10))
def test_hcl_charges_a_constant_gap_with_its_square_at_every_level(seed, side, gap):
    """The weights of the levels are divided by their total: they sum to 1."""
    t = drawn(2, 3, side, side, seed=seed)
    assert hcl_loss(t + gap, t).item() == pytest.approx(gap**2, rel=1e-9)


def test_hcl_sees_a_gap_without_a_mean_at_fine_levels_only():
    """A chessboard of +1 and -1 on 8x8 vanishes at 4x4: 1 of a total weight of 1 + 1/2 + 1/4 + 1/8."""
    board = torch.ones(1, 1, 8, 8)
    board[..., ::2, ::2] = board[..., 1::2, 1::2] = -1
    assert hcl_loss(board, torch.zeros(1, 1, 8, 8)).item() == pytest.approx(1 / 1.875)


def test_reviewkd_s_late_stages_guide_early_ones_and_not_the_other_way():
    """The charge of the deepest stage depends on it alone; that of the first depends on all."""
    s = [drawn(4, 3, 4, 4).requires_grad_(), drawn(4, 3, 2, 2).requires_grad_()]
    t = [drawn(4, 5, 4, 4, seed=1), drawn(4, 5, 2, 2, seed=1)]
    method = ready(ReviewKD(), [x.detach() for x in s], t)
    deep, handed = method.fuse[1](s[1], None, t[1])
    first, _ = method.fuse[0](s[0], handed, t[0])
    assert torch.autograd.grad(hcl_loss(deep, t[1]), s, retain_graph=True, allow_unused=True)[0] is None
    assert all(grad.abs().sum() > 0 for grad in torch.autograd.grad(hcl_loss(first, t[0]), s, retain_graph=True))
    expected = hcl_loss(deep, t[1]) + hcl_loss(first, t[0])
    assert charge(method, s, t).item() == pytest.approx(expected.item(), rel=1e-9)


PYRAMIDS = {
    "three stages": ([(4, 3, 8, 8), (4, 6, 4, 4), (4, 7, 2, 2)], [(4, 5, 8, 8), (4, 9, 4, 4), (4, 2, 2, 2)]),
    "a pyramid to tokens": ([(4, 3, 8, 8), (4, 6, 4, 4)], [(4, 17, 5), (4, 17, 5)]),
    "with pooled vectors": ([(4, 3, 4, 4), (4, 6)], [(4, 5, 4, 4), (4, 9)]),
}


@pytest.mark.parametrize("kind", PYRAMIDS)
@pytest.mark.parametrize("images", [1, 4])
def test_reviewkd_learns_from_every_pyramid(kind, images):
    s, t = ([drawn(*shape, seed=i)[:images] for i, shape in enumerate(side)] for side in PYRAMIDS[kind])
    method = ready(ReviewKD(), *([drawn(*shape, seed=9) for shape in side] for side in PYRAMIDS[kind]))
    charge(method, [x.requires_grad_() for x in s], t).backward()
    assert all(x.grad.isfinite().all() and x.grad.abs().sum() > 0 for x in s)
    assert all(p.grad is not None for p in method.parameters())


def test_what_reviewkd_hands_on_is_no_wider_than_512():
    assert ready(ReviewKD(), [drawn(2, 600, 2, 2)], [drawn(2, 3, 2, 2)]).fuse[0].enter[0].out_channels == 512
    assert Fusion(8, 4, 3, deepest=True).share is None

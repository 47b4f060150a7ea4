"""What is special to the losses that compare maps as they are: at, nst, cwd, skd, wkd_features."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from kit.features import drawn, ready
from kit.method_inputs import logit_terms

from stillroom.methods._errors import IncomparableFeatures
from stillroom.methods._mmd import mmd, polynomial
from stillroom.methods.at import at_loss, attention
from stillroom.methods.cwd import CWD, cwd_loss, spatial_log_softmax
from stillroom.methods.nst import nst_loss
from stillroom.methods.skd import affinity, skd_loss
from stillroom.methods.wkd_features import moments, wkd_features_loss
from stillroom.types import Output

seeds = st.integers(0, 2**31)


@given(seeds, st.sampled_from([1.0, 2.0, 4.0]))
def test_attention_has_length_one_and_no_negative_element(seed, power):
    found = attention(drawn(3, 5, 4, 4, seed=seed), power)
    assert torch.allclose(found.norm(dim=1), torch.ones(3).double()) and found.min() >= 0


def test_attention_that_lies_elsewhere_costs_most():
    s, t = torch.zeros(1, 2, 2, 2), torch.zeros(1, 3, 2, 2)
    s[0, 0, 0, 0], t[0, 1, 1, 1] = 3.0, -0.5
    assert at_loss(s, t).item() == pytest.approx(2 / 4, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_attention_of_numbers_of_any_size(scale):
    s, t = drawn(2, 3, 4, 4, dtype=torch.float32), drawn(2, 3, 4, 4, seed=1, dtype=torch.float32)
    assert at_loss(s * scale, t, 4.0).item() == pytest.approx(at_loss(s, t, 4.0).item(), rel=1e-4)
    assert attention(torch.zeros(2, 3, 4, 4)).abs().sum() == 0


@given(seeds, st.sampled_from([(3, 5, 4), (12, 9, 2), (2, 20, 3)]))
def test_nst_is_the_biased_discrepancy_of_the_squared_product(seed, size):
    """Huang and Wang 2017: k(x, y) = (x . y + c)^d with d = 2, c = 0 over channels of length 1."""
    c, d, side = size
    s, t = drawn(3, c, side, side, seed=seed), drawn(3, d, side, side, seed=seed + 1)
    rows = [F.normalize(x.flatten(2), dim=2) for x in (s, t)]
    expected = mmd(*rows, polynomial(2, 0.0), biased=True).mean().item()
    assert nst_loss(s, t).item() == pytest.approx(expected, rel=1e-9, abs=1e-13)
    assert nst_loss(torch.cat([s, s.flip(1)], 1), s).item() == pytest.approx(0, abs=1e-12)


def test_nst_is_largest_where_all_channels_fire_elsewhere_and_dead_ones_get_no_gradient():
    s, t = torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 2, 2)
    s[:, :, 0, 0], t[:, :, 1, 1] = 2.0, -5.0
    assert nst_loss(s, t) == 2
    dead = torch.cat([drawn(2, 2, 3, 3), torch.zeros(2, 1, 3, 3).double()], 1).requires_grad_()
    nst_loss(dead, drawn(2, 4, 3, 3, seed=1)).backward()
    assert dead.grad.isfinite().all() and dead.grad[:, 2].abs().max() == 0


@given(seeds, st.floats(0.2, 8.0))
def test_cwd_makes_each_channel_a_distribution_over_places(seed, temperature):
    shares = spatial_log_softmax(drawn(3, 5, 4, 6, seed=seed) * 10, temperature).exp()
    assert shares.shape == (3, 5, 24) and shares.min() >= 0
    assert torch.allclose(shares.sum(2), torch.ones(3, 5).double(), atol=1e-12)


def test_cwd_s_gradient_keeps_its_size_when_the_temperature_grows():
    """T^2: it tends to the difference of centred maps over the places and the rows."""
    s, t = drawn(2, 3, 4, 4).requires_grad_(), drawn(2, 3, 4, 4, seed=1)
    centred = [x - x.mean((2, 3), keepdim=True) for x in (s.detach(), t)]
    (grad,) = torch.autograd.grad(cwd_loss(s, t, 1e3), s)
    assert torch.allclose(grad, (centred[0] - centred[1]) / 16 / 6, rtol=1e-2, atol=1e-4)


def test_cwd_of_logits_at_the_authors_weight():
    method = CWD(of="logits")
    assert (method.default_taps, method.weight) == ("pred", 3.0) and (CWD().default_taps, CWD().weight) == (
        "last",
        50.0,
    )
    s, t = drawn(2, 4, 6, 6).requires_grad_(), drawn(2, 4, 6, 6, seed=1)
    method.setup(Output(pred=s), Output(pred=t))
    found = logit_terms(method, s, t)["cwd"]
    found.backward()
    assert torch.equal(found, cwd_loss(s, t)) and s.grad.abs().sum() > 0
    with pytest.raises(IncomparableFeatures, match="each class and pixel"):
        method.setup(Output(pred=drawn(2, 3)), Output(pred=drawn(2, 3)))


def test_cwd_s_convolution_stands_only_where_the_widths_differ():
    s, t = [drawn(4, 17, 3), drawn(4, 2, 8, 8)], [drawn(4, 5, 8, 8), drawn(4, 10, 2)]
    assert [type(part).__name__ for part in ready(CWD(), s, t).align] == ["Conv2d", "Identity"]


@given(seeds)
def test_affinities_are_cosines(seed):
    found = affinity(drawn(3, 5, 4, 3, seed=seed))
    assert found.shape == (3, 12, 12) and found.abs().max() <= 1 + 1e-12
    assert torch.allclose(found, found.mT) and torch.allclose(found.diagonal(dim1=1, dim2=2), found.new_ones(3, 12))


def test_skd_of_opposites_and_nodes_that_are_means_of_patches():
    s, t = torch.ones(1, 1, 1, 2), torch.tensor([[[[1.0, -1.0]]]])
    assert skd_loss(s, t).item() == pytest.approx(2.0)  # half of the pairs are of a place with itself
    s, t = drawn(2, 3, 8, 8), drawn(2, 4, 8, 8, seed=1)
    patches = [x.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean((3, 5)) for x in (s, t)]
    assert skd_loss(s, t, 4).item() == pytest.approx(skd_loss(*patches).item(), rel=1e-9)
    assert skd_loss(s, t, 8) != skd_loss(s, t, 4)


@given(seeds, st.floats(-5, 5), st.floats(0, 9))
def test_wkd_features_charges_a_shift_with_its_square_times_the_ratio(seed, shift, ratio):
    student = 3 * drawn(2, 3, 5, 4, seed=seed)
    found = wkd_features_loss(student + shift, student, ratio, 2)
    assert found.item() == pytest.approx(3 * ratio * shift**2, rel=1e-6, abs=1e-9)


def test_wkd_features_charges_a_spread_with_the_square_of_the_deviations_difference():
    """Deviations 1 and 3 (but for the 1e-5) in four channels: 4 x 2^2, whatever the ratio."""
    student = (torch.tensor([-1.0, 1.0]).double() / 2**0.5).expand(1, 4, 1, 2)
    assert wkd_features_loss(student, student * 3, 7.0).item() == pytest.approx(16, abs=1e-3)


@given(seeds, st.integers(1, 4))
def test_wkd_features_takes_maps_of_other_sizes(seed, grid):
    """Every place repeated in a 2x2 block: equal means, and var (n - 1) = var_larger (4n - 1) / 4, n = 4."""
    student, teacher = drawn(2, 3, 4, 4, seed=seed), drawn(2, 3, 4, 4, seed=seed + 1)
    larger = teacher.repeat_interleave(2, 2).repeat_interleave(2, 3)
    (mean, std), (mean_larger, std_larger) = moments(teacher, 2), moments(larger, 2)
    assert torch.allclose(mean_larger, mean, atol=1e-12)
    assert torch.allclose((std_larger**2 - 1e-5) * 15 / 4, (std**2 - 1e-5) * 3, atol=1e-9)
    assert wkd_features_loss(student, larger, 1.0, grid).isfinite()


@pytest.mark.parametrize(
    ("side", "grid", "expected"), [(5, 2, [1.0, 3.0]), (5, 3, [0.5, 2.0, 3.5]), (4, 2, [0.5, 2.5])]
)
def test_cells_cover_the_whole_side_and_overlap_where_it_is_no_multiple(side, grid, expected):
    means, _ = moments(torch.arange(float(side)).expand(1, 1, side, side), grid)
    assert means.view(grid, grid)[0].tolist() == expected


def test_a_map_of_one_place_has_a_mean_and_no_deviation():
    student, teacher = drawn(3, 4, 1, 1).requires_grad_(), drawn(3, 4, 1, 1, seed=1)
    loss = wkd_features_loss(student, teacher, 1.0)
    assert torch.isclose(loss, (student - teacher).square().sum((1, 2, 3)).mean())
    (grad,) = torch.autograd.grad(loss, student)
    assert grad.isfinite().all()

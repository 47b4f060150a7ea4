"""What a maximum mean discrepancy must be, told from many samples (Gretton et al. 2012)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit.features import drawn
from scipy.stats import kstest

from stillroom.methods._mmd import discrepancy, linear, median_distance, mmd, polynomial, rbf

KERNELS = {"linear": linear, "polynomial": polynomial(2, 1.0), "rbf": rbf(2.0)}
seeds = st.integers(0, 2**31)


def samples(draws, shift):
    """[draws]: unbiased discrepancies of 100 rows of N(0, I_4) and 100 of N(shift e_1, I_4), sigma 2."""
    x, y = drawn(draws, 100, 4, seed=0), drawn(draws, 100, 4, seed=1)
    y[..., 0] += shift
    return mmd(x, y, rbf(2.0))


def test_nothing_on_average_where_the_distributions_agree():
    """Over 100 draws the mean lies within 3 standard errors of 0. The biased one's does not."""
    found = samples(100, 0.0)
    assert abs(found.mean()) <= 3 * found.std() / 10
    x, y = drawn(100, 100, 4, seed=0), drawn(100, 100, 4, seed=1)
    biased = mmd(x, y, rbf(2.0), biased=True)
    assert biased.min() >= 0 and biased.mean() > 3 * biased.std() / 10


def test_the_closed_form_of_two_normal_distributions():
    """2 (s^2 / (s^2 + 2))^2 (1 - exp(-1 / (2 (s^2 + 2)))) = 0.07107 at s = 2, within 3 se."""
    exact = 2 * (4 / 6) ** 2 * (1 - math.exp(-1 / 12))
    assert exact == pytest.approx(0.07107, abs=5e-6)
    found = samples(100, 1.0)
    assert found.std() / 10 < 0.004
    assert abs(found.mean() - exact) <= 3 * found.std() / 10


@given(seeds, st.integers(1, 9), st.integers(1, 9))
def test_linear_is_the_distance_of_the_means(seed, n, m):
    """||mean_x - mean_y||^2, biased form, to 1e-6."""
    x, y = drawn(n, 5, seed=seed), drawn(m, 5, seed=seed + 1) + 0.3
    expected = (x.mean(0) - y.mean(0)).square().sum().item()
    assert mmd(x, y, linear, biased=True).item() == pytest.approx(expected, abs=1e-6)


def test_permutations_tell_nothing_where_there_is_nothing_to_tell():
    """Under the null the p of a permutation test is uniform: KS p > 0.01 over 200 repetitions."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(200):
        both = torch.randn(30, 4, generator=generator)
        k = rbf(median_distance(both[:15], both[15:]))(both, both)
        orders = torch.rand(200, 30, generator=generator).argsort(1)
        orders[0] = torch.arange(30)
        mixed = k[orders[:, :, None], orders[:, None, :]]
        drawn_again = discrepancy(mixed[:, :15, :15], mixed[:, 15:, 15:], mixed[:, :15, 15:])
        found.append((drawn_again >= drawn_again[0]).double().mean().item())
    assert kstest(found, "uniform").pvalue > 0.01


def test_a_permutation_test_finds_what_there_is():
    x, y = drawn(40, 4, dtype=torch.float32), drawn(40, 4, seed=1, dtype=torch.float32) + 1
    both, kernel = torch.cat([x, y]), rbf(median_distance(x, y))
    orders = torch.rand(200, 80, generator=torch.Generator().manual_seed(0)).argsort(1)
    shuffled = mmd(both[orders][:, :40], both[orders][:, 40:], kernel)
    assert (shuffled >= mmd(x, y, kernel)).sum() == 0


@pytest.mark.parametrize("name", KERNELS)
@given(seed=seeds)
def test_symmetric_and_zero_for_the_same_sample(name, seed):
    kernel, x, y = KERNELS[name], drawn(6, 3, seed=seed), drawn(8, 3, seed=seed + 1)
    assert mmd(x, x, kernel, biased=True) == 0
    assert mmd(x, y, kernel, biased=True) >= -1e-12
    for biased in (False, True):
        expected = mmd(x, y, kernel, biased=biased).item()
        assert mmd(y, x, kernel, biased=biased).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
        order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
        assert mmd(x[order], y, kernel, biased=biased).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(seeds, st.floats(-1e4, 1e4))
def test_rbf_knows_distances_only(seed, shift):
    """Also far from 0, where distances taken from products would be noise: in single precision here."""
    x, y = drawn(6, 3, seed=seed), drawn(8, 3, seed=seed + 1)
    q, _ = torch.linalg.qr(drawn(3, 3, seed=seed + 2))
    expected = mmd(x, y, rbf(1.0)).item()
    assert mmd(x @ q, y @ q, rbf(1.0)).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert mmd((x + shift).float(), (y + shift).float(), rbf(1.0)).item() == pytest.approx(expected, abs=2e-3)


def test_polynomials_see_what_means_do_not():
    """Same mean, another spread: nothing for the linear kernel, something for the square."""
    x, y = drawn(2000, 2), drawn(2000, 2, seed=1) * 2
    assert abs(mmd(x, y, linear)) < 0.02 and mmd(x, y, polynomial(2)) > 5


def test_the_median_is_over_all_pairs_of_both():
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[5.0]])
    assert median_distance(x, y) == 4.0  # of 1, 5 and 4


@pytest.mark.parametrize("name", KERNELS)
def test_gradient_and_half_precision(name):
    x, y = drawn(5, 3).requires_grad_(), drawn(4, 3, seed=1)
    for biased in (False, True):
        assert torch.autograd.gradcheck(lambda x, biased=biased: mmd(x, y, KERNELS[name], biased=biased), (x,))
    expected = mmd(x.half().float(), y.half().float(), KERNELS[name])
    with torch.autocast("cpu", torch.bfloat16):
        assert mmd(x.half(), y.half(), KERNELS[name]).item() == pytest.approx(expected.item(), rel=1e-5)


def test_one_row_has_no_unbiased_discrepancy():
    x, y = drawn(1, 3), drawn(4, 3, seed=1)
    assert mmd(x, y, linear, biased=True).isfinite()
    with pytest.raises(ValueError, match=r"needs at least 2 rows on each side, got \[1, 4\]"):
        mmd(x, y, linear)

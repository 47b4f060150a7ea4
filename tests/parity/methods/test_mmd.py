"""MMD against loops over pairs, its kernels against scikit-learn's."""

from __future__ import annotations

import math

import pytest
from kit.features import drawn
from sklearn.metrics.pairwise import linear_kernel, polynomial_kernel, rbf_kernel

from stillroom.methods._mmd import linear, median_distance, mmd, polynomial, rbf


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


PAIRS = {
    "linear": (linear, dot),
    "polynomial": (polynomial(3, 0.5), lambda x, y: (dot(x, y) + 0.5) ** 3),
    "rbf": (
        rbf(1.5),
        lambda x, y: math.exp(-sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / (2 * 1.5**2)),
    ),
}


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", PAIRS)
def test_loops(name, biased):
    """1 / n(n-1) sum k(x_i, x_j) + 1 / m(m-1) sum k(y_i, y_j) - 2 / nm sum k(x_i, y_j), i != j."""
    kernel, k = PAIRS[name]
    x, y = drawn(6, 3), drawn(4, 3, seed=1) + 0.5
    rows = x.tolist(), y.tolist()
    expected = 0.0
    for side in rows:
        pairs = [(i, j) for i in range(len(side)) for j in range(len(side)) if biased or i != j]
        expected += sum(k(side[i], side[j]) for i, j in pairs) / len(pairs)
    expected -= 2 * sum(k(a, b) for a in rows[0] for b in rows[1]) / 24
    assert mmd(x, y, kernel, biased=biased).item() == pytest.approx(expected, rel=1e-9)


def test_kernels_of_scikit_learn():
    x, y = drawn(6, 3), drawn(4, 3, seed=1)
    sigma = median_distance(x, y)
    assert linear(x, y).numpy() == pytest.approx(linear_kernel(x, y), rel=1e-12)
    assert polynomial(2, 0.0)(x, y).numpy() == pytest.approx(polynomial_kernel(x, y, 2, gamma=1, coef0=0), rel=1e-12)
    assert rbf(sigma)(x, y).numpy() == pytest.approx(rbf_kernel(x, y, gamma=1 / (2 * sigma.item() ** 2)), rel=1e-12)


def test_samples_in_parallel_are_samples_one_by_one():
    x, y = drawn(3, 6, 2), drawn(3, 5, 2, seed=1)
    for kernel, _ in PAIRS.values():
        expected = [mmd(a, b, kernel).item() for a, b in zip(x, y, strict=True)]
        assert mmd(x, y, kernel).tolist() == pytest.approx(expected, rel=1e-12)

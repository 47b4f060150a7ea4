"""WKD-F against the Wasserstein distance of Gaussians and against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from kit.batches import batch_of

from stillroom.methods.wkd_features import WKDFeatures, wkd_features_loss
from stillroom.types import Output


def bures(mean_a, cov_a, mean_b, cov_b):
    """||m_a - m_b||^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2), for any covariances."""
    root = scipy.linalg.sqrtm(cov_a)
    cross = scipy.linalg.sqrtm(root @ cov_b @ root)
    return ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * cross).real


@pytest.mark.parametrize("seed", range(5))
def test_ratio_one_is_the_wasserstein_distance_of_diagonal_gaussians(seed):
    """Equal to the full Bures formula of scipy's sqrtm to 1e-9."""
    torch.manual_seed(seed)
    student = torch.randn(1, 6, 4, 5, dtype=torch.float64) * 2
    teacher = torch.randn(1, 6, 4, 5, dtype=torch.float64) + 0.5
    gaussian = [
        (x[0].flatten(1).mean(1).numpy(), np.diag(x[0].flatten(1).numpy().var(1, ddof=1) + 1e-5))
        for x in (student, teacher)
    ]
    expected = bures(*gaussian[0], *gaussian[1])
    assert wkd_features_loss(student, teacher, 1.0).item() == pytest.approx(expected, abs=1e-9)


def statistics(values):
    mean = sum(values) / len(values)
    var = sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1)
    return mean, math.sqrt(var + 1e-5)


def naive(student, teacher, ratio, grid):
    """Lv et al. 2024, as their code reduces it: /(grid^2 B); cell i covers floor(i n / g) to ceil((i + 1) n / g)."""
    total = 0.0
    for b in range(len(student)):
        for c in range(student.shape[1]):
            for i in range(grid):
                for j in range(grid):
                    found = []
                    for x in (student, teacher):
                        height, width = x.shape[2:]
                        rows = range(math.floor(i * height / grid), math.ceil((i + 1) * height / grid))
                        columns = range(math.floor(j * width / grid), math.ceil((j + 1) * width / grid))
                        found.append(statistics([x[b, c, y, z].item() for y in rows for z in columns]))
                    (mean_s, std_s), (mean_t, std_t) = found
                    total += ratio * (mean_s - mean_t) ** 2 + (std_s - std_t) ** 2
    return total / (grid**2 * len(student))


@pytest.mark.parametrize("grid", [1, 2, 3, 5])
def test_loops(grid):
    torch.manual_seed(grid)
    student, teacher = torch.randn(2, 3, 5, 4, dtype=torch.float64), torch.randn(2, 3, 4, 7, dtype=torch.float64)
    expected = naive(student, teacher, 4.0, grid)
    assert wkd_features_loss(student, teacher, 4.0, grid).item() == pytest.approx(expected, rel=1e-9)


def test_the_class_is_a_convolution_and_the_loss():
    torch.manual_seed(0)
    s, t = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 5, 4, 4, dtype=torch.float64)
    method = WKDFeatures(grid=2)
    method.bind_taps(("a",), ("b",))
    student, teacher = Output(pred=s, taps={"a": s}), Output(pred=t, taps={"b": t})
    method.setup(student, teacher)
    method.double()
    layer = method.regress[0]
    weight, bias = layer.weight[:, :, 0, 0].detach(), layer.bias.detach()
    fitted = torch.einsum("oc,bchw->bohw", weight, s) + bias[:, None, None]
    batch = batch_of(2, torch.zeros(2))
    found = method.loss(method.project(student), teacher, batch, 0.0)
    assert found["wasserstein"].item() == pytest.approx(naive(fitted, t, 4.0, 2), rel=1e-9)

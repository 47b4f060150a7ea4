"""The temperature policies against their equations, written as naive loops or taken from scipy, in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from kit.batches import batch_of
from scipy.stats import spearmanr

from stillroom.methods._temperature import rank_correlation, temperature_of
from stillroom.methods.divergence import Divergence, divergence_loss
from stillroom.methods.hinton import Hinton, hinton_loss
from stillroom.types import Output


def two(*shape):
    torch.manual_seed(0)
    return torch.randn(shape, dtype=torch.float64) * 3, torch.randn(shape, dtype=torch.float64) * 3


def cosine(student, teacher, progress, highest, lowest):
    return [lowest + (highest - lowest) * (1 + math.cos(math.pi * progress)) / 2] * len(student)


def learned(student, teacher, progress, highest, lowest):
    """Li et al. 2023, with the parameter at its first value, 1."""
    return [lowest + (highest - lowest) / (1 + math.exp(-1))] * len(student)


def adaptive(student, teacher, progress, highest, lowest):
    """Guo et al. 2024, rho held in 0..1."""
    rhos = [spearmanr(a, b).statistic for a, b in zip(student, teacher, strict=True)]
    return [lowest + (highest - lowest) * (1 - math.exp(-min(max(rho, 0.0), 1.0))) for rho in rhos]


def max_logit(student, teacher, progress, highest, lowest):
    return [min(max(max(row) - sum(row) / len(row), lowest), highest) for row in teacher]


def constant(student, teacher, progress, highest, lowest):
    return [highest] * len(student)


NAIVE = {one.__name__: one for one in (constant, cosine, learned, adaptive, max_logit)}


@pytest.mark.parametrize("policy", NAIVE)
@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("highest", "lowest"), [(4.0, 1.0), (6.0, 4.5), (2.0, 2.0)])
def test_every_policy(policy, progress, highest, lowest):
    student, teacher = two(40, 7)
    expected = NAIVE[policy](student.tolist(), teacher.tolist(), progress, highest, lowest)
    module = temperature_of(policy, highest, lowest).double()
    found = module(student, teacher, progress).expand(40, 1).flatten()
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("policy", NAIVE)
@pytest.mark.parametrize("standardised", [False, True])
def test_the_methods_use_it(policy, standardised):
    """The rows that the policy reads are those that are compared: pixels, standardised where that is asked for."""
    maps = two(2, 5, 3, 4)
    batch = batch_of(2, torch.zeros(2))
    student, teacher = (x.permute(0, 2, 3, 1).reshape(-1, 5) for x in maps)
    if standardised:
        student, teacher = ((x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-7) for x in (student, teacher))
    heat = NAIVE[policy](student.tolist(), teacher.tolist(), 0.3, 5.0, 0.5)
    heat = torch.tensor(heat, dtype=torch.float64)[:, None]
    arguments = {"temperature": 5.0, "policy": policy, "lowest": 0.5, "standardised": standardised}
    for method, expected in (
        (Hinton(**arguments), hinton_loss(student, teacher, heat)),
        (Divergence(**arguments), divergence_loss(student, teacher, "js", heat)),
    ):
        (found,) = method.double().loss(Output(pred=maps[0]), Output(pred=maps[1]), batch, 0.3).values()
        assert found.item() == pytest.approx(expected.item(), rel=1e-9)


def test_agreement_is_scipy_s_spearman_with_and_without_ties():
    student, teacher = two(200, 6)
    for a, b in ((student, teacher), (student.round(), teacher.round()), (student.sign(), teacher.round())):
        mixed = (a.amin(1) < a.amax(1)) & (b.amin(1) < b.amax(1))
        a, b = a[mixed], b[mixed]
        expected = [spearmanr(x, y).statistic for x, y in zip(a.tolist(), b.tolist(), strict=True)]
        assert len(a) > 150 and rank_correlation(a, b).flatten().tolist() == pytest.approx(expected, abs=1e-12)


def test_agreement_with_the_published_example():
    """The tie-aware value for (1..5) and (5, 6, 7, 8, 7) is 0.82078."""
    rho = rank_correlation(torch.tensor([[1.0, 2, 3, 4, 5]]), torch.tensor([[5.0, 6, 7, 8, 7]]))
    assert rho.item() == pytest.approx(0.82078, abs=1e-5)

"""LUD against its equations, as loops with scipy's ranks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from kit.method_inputs import logit_terms
from scipy.special import softmax
from scipy.stats import spearmanr

from stillroom.methods import lud
from stillroom.methods.lud import LUD, lud_loss


def naive(student, teacher, highest=4.0, lowest=1.0):
    """Guo et al. 2024, with 1 - rho for rho, images dropped before the matrices are made, and rho held in 0..1."""
    sure = [max(row) for row in softmax(teacher, axis=1)]
    kept = [i for i, value in enumerate(sure) if value > np.sort(sure)[(len(sure) - 1) // 2]]
    p, q = [], []
    for i in kept:
        rho = min(max(spearmanr(student[i], teacher[i]).statistic, 0.0), 1.0)
        heat = lowest + (highest - lowest) * (1 - math.exp(-rho))
        p.append(softmax(student[i] / heat))
        q.append(softmax(teacher[i] / heat))
    p, q = np.array(p), np.array(q)

    def relation(a, b):
        return np.mean([1 - spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)])

    classes, images = range(p.shape[1]), range(len(p))
    category = [[[sum(m[i][a] * m[i][b] for i in images) for b in classes] for a in classes] for m in (p, q)]
    sample = [[[sum(m[i][a] * m[j][a] for a in classes) for j in images] for i in images] for m in (p, q)]
    return relation(*category), relation(*sample)


@pytest.mark.parametrize("images", [8, 13])
def test_against_loops(images):
    """Whole ranks exactly; soft ones so narrow that they are whole (the likenesses here lie 1e-9 apart)."""
    torch.manual_seed(0)
    student, teacher = torch.randn(images, 6).double() * 2, torch.randn(images, 6).double() * 2
    expected = naive(student.numpy(), teacher.numpy())
    assert [part.item() for part in lud_loss(student, teacher, reg=0)] == pytest.approx(expected, rel=1e-9)
    assert [part.item() for part in lud_loss(student, teacher, reg=1e-9)] == pytest.approx(expected, rel=1e-9)


def charged(method, student, teacher):
    return [term.item() for term in logit_terms(method, student, teacher).values()]


def test_the_method():
    """The class at its defaults: weights 1 and 1, T in 1..4, reg 0.01."""
    torch.manual_seed(1)
    student, teacher = torch.randn(12, 6).double() * 2, torch.randn(12, 6).double() * 2
    expected = [part.item() for part in lud_loss(student, teacher, temperature=4.0, lowest=1.0, reg=0.01)]
    assert charged(LUD(), student, teacher) == expected
    assert charged(LUD(category=2.0, sample=3.0), student, teacher) == [2 * expected[0], 3 * expected[1]]
    assert charged(LUD(reg=1e-9), student, teacher) == pytest.approx(naive(student.numpy(), teacher.numpy()), rel=1e-9)


def test_the_batch_is_that_of_all_processes(monkeypatch):
    """With the other process's rows gathered, half a batch costs what the whole does."""
    torch.manual_seed(2)
    student, teacher = torch.randn(12, 6).double(), torch.randn(12, 6).double()
    whole = charged(LUD(), student, teacher)
    others = iter([student[6:], teacher[6:]])
    monkeypatch.setattr(lud, "gather_rows", lambda x: torch.cat([x, next(others)]))
    assert charged(LUD(), student[:6], teacher[:6]) == pytest.approx(whole, rel=1e-12)

"""DIST against scipy's correlations, row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kit.method_inputs import logit_terms
from scipy.special import softmax
from scipy.stats import pearsonr, spearmanr

from stillroom.methods import dist
from stillroom.methods.dist import DIST

CORRELATIONS = {
    "pearson": [pearsonr],
    "spearman": [spearmanr],
    "pearson+spearman": [pearsonr, spearmanr],
}


def naive(student, teacher, correlations, *, beta=1.0, gamma=1.0, temperature=1.0):
    """Huang et al. 2022: beta (1 - mean over images), gamma (1 - mean over classes), both times T^2."""
    y_s, y_t = (softmax(z / temperature, axis=1) for z in (student, teacher))

    def away(a, b):
        return 1 - np.mean([f(x, y).statistic for x, y in zip(a, b, strict=True) for f in correlations])

    return beta * temperature**2 * away(y_s, y_t), gamma * temperature**2 * away(y_s.T, y_t.T)


def charged(method, student, teacher):
    terms = logit_terms(method, student, teacher)
    return terms["inter"].item(), terms["intra"].item()


@pytest.mark.parametrize("kind", CORRELATIONS)
def test_against_scipy(kind):
    """The loop over pearsonr to 1e-6. Ranks are soft: with probabilities apart, and a small reg."""
    torch.manual_seed(0)
    student, teacher = torch.randn(8, 10).double() * 2, torch.randn(8, 10).double() * 2
    expected = naive(student.numpy(), teacher.numpy(), CORRELATIONS[kind])
    assert charged(DIST(correlation=kind, reg=1e-7), student, teacher) == pytest.approx(expected, abs=1e-6)
    assert DIST.weight == 1.0 and DIST().beta == DIST().gamma == DIST().temperature == 1.0


def test_weights_and_temperature():
    """The paper's setting on CIFAR-100: beta = gamma = 2, T = 4."""
    torch.manual_seed(1)
    student, teacher = torch.randn(8, 10).double() * 2, torch.randn(8, 10).double() * 2
    expected = naive(student.numpy(), teacher.numpy(), [pearsonr], beta=2, gamma=3, temperature=4)
    assert charged(DIST(beta=2.0, gamma=3.0, temperature=4.0), student, teacher) == pytest.approx(expected, rel=1e-9)


def test_per_pixel_against_scipy():
    torch.manual_seed(2)
    student, teacher = torch.randn(2, 5, 2, 3).double(), torch.randn(2, 5, 2, 3).double()
    flat = [x.numpy().transpose(0, 2, 3, 1).reshape(-1, 5) for x in (student, teacher)]
    assert charged(DIST(), student, teacher) == pytest.approx(naive(*flat, [pearsonr]), abs=1e-6)


def test_correlations_over_images_are_over_those_of_all_processes(monkeypatch):
    """With the other process's rows gathered, half a batch has the whole one's intra-class term."""
    torch.manual_seed(3)
    student, teacher = torch.randn(6, 4).double(), torch.randn(6, 4).double()
    whole = charged(DIST(), student, teacher)
    others = iter([student[3:].softmax(1), teacher[3:].softmax(1)])
    monkeypatch.setattr(dist, "gather_rows", lambda x: torch.cat([x, next(others)]))
    first = charged(DIST(), student[:3], teacher[:3])
    monkeypatch.undo()
    assert first[1] == pytest.approx(whole[1], rel=1e-12)
    assert (first[0] + charged(DIST(), student[3:], teacher[3:])[0]) / 2 == pytest.approx(whole[0], rel=1e-12)

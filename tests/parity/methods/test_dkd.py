"""DKD against the paper's equations and against the authors' masked form, as loops."""

from __future__ import annotations

import math

import pytest
import torch
from kit.batches import batch_of
from kit.naive import softmax

from stillroom.methods.dkd import DKD, dkd_loss
from stillroom.types import Output


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def naive(student, teacher, target, temperature):
    """Zhao et al. 2022, eqs. 5 to 7: both divergences, means over images, times T^2."""
    tckd = nckd = 0.0
    for z_s, z_t, y in zip(student, teacher, target, strict=True):
        q, p = softmax(z_s, temperature), softmax(z_t, temperature)
        tckd += divergence([p[y], 1 - p[y]], [q[y], 1 - q[y]])
        others = [k for k in range(len(p)) if k != y]
        nckd += divergence([p[k] / (1 - p[y]) for k in others], [q[k] / (1 - q[y]) for k in others])
    return temperature**2 * tckd / len(student), temperature**2 * nckd / len(student)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_against_loops(temperature):
    torch.manual_seed(0)
    student, teacher = torch.randn(8, 10, dtype=torch.float64) * 2, torch.randn(8, 10, dtype=torch.float64) * 2
    target = torch.randint(10, (8,))
    tckd, nckd = naive(student.tolist(), teacher.tolist(), target.tolist(), temperature)
    found = dkd_loss(student, teacher, target, alpha=1.0, beta=8.0, temperature=temperature)
    assert [x.item() for x in found] == pytest.approx([tckd, 8 * nckd], rel=1e-9)


def test_the_method():
    """Defaults alpha 1, beta 8, T 4, weight 1."""
    torch.manual_seed(1)
    student, teacher, target = torch.randn(4, 6).double(), torch.randn(4, 6).double(), torch.randint(6, (4,))
    batch = batch_of(4, target)
    found = DKD().loss(Output(pred=student), Output(pred=teacher), batch, 0.0)
    tckd, nckd = naive(student.tolist(), teacher.tolist(), target.tolist(), 4.0)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {"tckd": tckd, "nckd": 8 * nckd}, rel=1e-9
    )
    assert DKD.weight == 1.0


def test_the_masked_form_is_the_same_where_it_has_room():
    """The authors push the true class down by 1000: the same number in float64 at T = 1."""
    torch.manual_seed(2)
    student, teacher, target = torch.randn(8, 10).double(), torch.randn(8, 10).double(), torch.randint(10, (8,))
    mask = 1000 * torch.nn.functional.one_hot(target, 10)
    log_q, p = (student - mask).log_softmax(1), (teacher - mask).softmax(1)
    expected = torch.nn.functional.kl_div(log_q, p, reduction="batchmean")
    _, nckd = dkd_loss(student, teacher, target, alpha=1.0, beta=1.0, temperature=1.0)
    assert nckd.item() == pytest.approx(expected.item(), rel=1e-12)

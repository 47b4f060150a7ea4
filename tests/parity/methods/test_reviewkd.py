"""Knowledge review against Chen et al. 2021, section 3: pooled by hand, fused with numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from kit.features import charge, convolved, drawn, normalised, ready

from stillroom.methods.reviewkd import ReviewKD, hcl_loss


def pooled(x, side):
    """x [B, C, h, h] averaged over side x side windows; the i-th begins at floor(i h / side), ends at ceil."""
    h = x.shape[2]
    edges = [(i * h // side, -(-(i + 1) * h // side)) for i in range(side)]
    return np.array([[x[:, :, a:b, c:d].mean((2, 3)) for c, d in edges] for a, b in edges])


def naive(student, teacher):
    h, weight = student.shape[2], 1.0
    total, weights = ((student - teacher) ** 2).mean(), 1.0
    for side in (4, 2, 1):
        if side < h:
            weight /= 2
            total += weight * ((pooled(student, side) - pooled(teacher, side)) ** 2).mean()
            weights += weight
    return total / weights


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8, 14])
def test_hand_pooled(side):
    """Equals a hand-pooled reference."""
    s, t = drawn(2, 3, side, side), drawn(2, 3, side, side, seed=1)
    assert hcl_loss(s, t).item() == pytest.approx(naive(s.numpy(), t.numpy()), rel=1e-9)


def test_the_class_with_its_fusions():
    """Two stages of a student, 4x4 and 2x2, against a teacher's 8x8 and 2x2."""
    s, t = [drawn(3, 3, 4, 4), drawn(3, 4, 2, 2)], [drawn(3, 5, 8, 8, seed=1), drawn(3, 6, 2, 2, seed=2)]
    method = ready(ReviewKD(), s, t)
    first, deepest = method.fuse
    deep = normalised(convolved(s[1].numpy(), deepest.enter[0]))
    expected = naive(normalised(convolved(deep, deepest.leave[0])), t[1].numpy())
    x, y = normalised(convolved(s[0].numpy(), first.enter[0])), deep.repeat(2, 2).repeat(2, 3)
    share = 1 / (1 + np.exp(-convolved(np.concatenate([x, y], 1), first.share[0])))
    mixed = (x * share[:, :1] + y * share[:, 1:]).repeat(2, 2).repeat(2, 3)
    expected += naive(normalised(convolved(mixed, first.leave[0])), t[0].numpy())
    assert charge(method, s, t).item() == pytest.approx(expected, rel=1e-9)

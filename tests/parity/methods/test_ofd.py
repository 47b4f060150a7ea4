"""OFD against Heo et al. 2019, section 3, written as loops."""

from __future__ import annotations

import numpy as np
import pytest
from kit.features import charge, convolved, drawn, normalised, ready

from stillroom.methods.ofd import OFD, margin, negatives, ofd_loss


def naive_margin(teacher):
    """[B][C][h][w] -> for each channel the mean of its negative numbers."""
    found = []
    for c in range(len(teacher[0])):
        below = [x for image in teacher for row in image[c] for x in row if x < 0]
        found.append(sum(below) / len(below) if below else 0.0)
    return found


def naive(student, teacher, margins):
    """The distance in its three cases, summed over elements and divided by the images."""
    total = 0.0
    for s_image, t_image in zip(student, teacher, strict=True):
        for s_map, t_map, m in zip(s_image, t_image, margins, strict=True):
            for s_row, t_row in zip(s_map, t_map, strict=True):
                for s, t in zip(s_row, t_row, strict=True):
                    if t > 0:
                        total += (s - t) ** 2
                    elif t > m:
                        total += (s - t) ** 2 if s > t else 0.0
                    else:
                        total += (s - m) ** 2 if s > m else 0.0
    return total / len(student)


@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0, 9.0])
def test_loops(shift):
    s, t = drawn(4, 3, 3, 3), drawn(4, 3, 3, 3, seed=1) + shift
    margins = naive_margin(t.tolist())
    assert margin(negatives(t)).tolist() == pytest.approx(margins, rel=1e-12)
    expected = naive(s.tolist(), t.tolist(), margins)
    assert ofd_loss(s, t, margin(negatives(t))).item() == pytest.approx(expected, rel=1e-9)


def test_the_class_with_its_connectors():
    s, t = [drawn(4, 3, 4, 4), drawn(4, 2, 2, 2)], [drawn(4, 5, 2, 2, seed=1), drawn(4, 6, 2, 2, seed=2)]
    method = ready(OFD(), s, t)
    expected = 0.0
    for i in range(2):
        lifted = normalised(convolved(s[i].numpy(), method.adapt[i][0]))
        if i == 0:
            lifted = lifted.reshape(4, 5, 2, 2, 2, 2).mean((3, 5))
        expected += naive(lifted.tolist(), t[i].tolist(), naive_margin(t[i].tolist())) / 2 ** (1 - i)
    assert charge(method, s, t).item() == pytest.approx(expected, rel=1e-9)


def test_connectors_begin_as_the_authors():
    """Weights normal with standard deviation sqrt(2 / channels out)."""
    method = ready(OFD(), [drawn(2, 300, 2, 2)], [drawn(2, 200, 2, 2)])
    weight = method.adapt[0][0].weight.detach().numpy()
    assert np.std(weight) == pytest.approx(np.sqrt(2 / 200), rel=0.02) and abs(np.mean(weight)) < 2e-3

"""Channel-wise distillation against Shu et al. 2021, eq. 3-5, written as loops; and DIST pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from kit.batches import batch_of
from kit.features import charge, drawn, ready
from kit.naive import halved

from stillroom.methods.cwd import CWD, cwd_loss
from stillroom.methods.dist import DIST
from stillroom.types import Output


def shares(channel, temperature):
    powers = [math.exp(value / temperature) for row in channel for value in row]
    return [power / sum(powers) for power in powers]


def naive(student, teacher, temperature):
    rows = []
    for one, other in zip(student.tolist(), teacher.tolist(), strict=True):
        for s, t in zip(one, other, strict=True):
            ours, theirs = shares(s, temperature), shares(t, temperature)
            rows.append(sum(b * math.log(b / a) for a, b in zip(ours, theirs, strict=True)))
    return temperature**2 * sum(rows) / len(rows)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_loops(temperature):
    s, t = drawn(3, 4, 3, 5), drawn(3, 4, 3, 5, seed=1)
    assert cwd_loss(s, t, temperature).item() == pytest.approx(naive(s, t, temperature), rel=1e-9)


def test_the_class_aligns_widths_and_sums_over_pairs_at_the_smaller_size():
    s, t = [drawn(3, 4, 4, 4), drawn(3, 5, 2, 2)], [drawn(3, 6, 2, 2, seed=1), drawn(3, 5, 4, 4, seed=1)]
    method = ready(CWD(temperature=2.0), s, t)

    layer = method.align[0]
    aligned = torch.einsum("dc,bchw->bdhw", layer.weight[:, :, 0, 0], s[0]) + layer.bias.view(1, -1, 1, 1)
    expected = naive(halved(aligned), t[0], 2.0) + naive(s[1], halved(t[1]), 2.0)
    assert charge(method, s, t).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("correlation", ["pearson", "spearman"])
def test_dist_of_pixels_is_dist_of_the_pixels_as_rows(correlation):
    s, t = drawn(2, 4, 3, 5), drawn(2, 4, 3, 5, seed=1)
    method = DIST(temperature=2.0, correlation=correlation)
    batch = batch_of(2, torch.zeros(2, 3, 5, dtype=torch.int64))
    dense = method.loss(Output(pred=s), Output(pred=t), batch, 0.5)
    flat = [torch.stack([x[b, :, i, j] for b in range(2) for i in range(3) for j in range(5)]) for x in (s, t)]
    rows = method.loss(Output(pred=flat[0]), Output(pred=flat[1]), batch, 0.5)
    assert dense.keys() == rows.keys() == {"inter", "intra"}
    for name in dense:
        assert dense[name].item() == pytest.approx(rows[name].item(), abs=1e-6)
        assert dense[name] > 0.1

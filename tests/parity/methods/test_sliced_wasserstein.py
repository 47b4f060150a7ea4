"""The sliced Wasserstein distance against scipy's one-dimensional one and against loops."""

from __future__ import annotations

from itertools import permutations

import pytest
import scipy.stats
import torch
from kit.batches import batch_of

from stillroom.methods.sliced_wasserstein import SlicedWasserstein, random_directions, sliced_wasserstein_loss
from stillroom.types import Output


def cheapest(a, b):
    """The least mean squared cost of all ways to send one set of numbers to another."""
    return min(sum((x - y) ** 2 for x, y in zip(a, way, strict=True)) for way in permutations(b)) / len(a)


@pytest.mark.parametrize("seed", range(3))
def test_each_direction_is_the_best_transport_of_all(seed):
    torch.manual_seed(seed)
    student, teacher = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    directions = random_directions(4, teacher)
    costs = []
    for u in directions.tolist():
        a, b = ([sum(p * q for p, q in zip(row, u, strict=True)) for row in x.tolist()] for x in (student, teacher))
        costs.append(cheapest(a, b))
    found = sliced_wasserstein_loss(student, teacher, directions).item()
    assert found == pytest.approx(sum(costs) / 4, rel=1e-9)


def test_sorting_is_scipy_s_transport_in_one_dimension():
    """Of points 0 and 1 only, squared and plain distances agree, and scipy has the plain one."""
    torch.manual_seed(0)
    student, teacher = (torch.randint(0, 2, (50, 1)).double() for _ in range(2))
    expected = scipy.stats.wasserstein_distance(student[:, 0].numpy(), teacher[:, 0].numpy())
    found = sliced_wasserstein_loss(student, teacher, torch.ones(1, 1, dtype=torch.float64))
    assert expected > 0 and found.item() == pytest.approx(expected, abs=1e-9)


def test_the_class_pools_and_fits_the_width():
    torch.manual_seed(0)
    s, t = torch.randn(4, 3, 2, 2, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    method = SlicedWasserstein(directions=3)
    method.bind_taps(("a",), ("b",))
    student, teacher = Output(pred=s, taps={"a": s}), Output(pred=t, taps={"b": t})
    method.setup(student, teacher)
    method.double()
    weight, bias = method.regress[0].weight.tolist(), method.regress[0].bias.tolist()
    pooled = [[sum(s[b, c].flatten().tolist()) / 4 for c in range(3)] for b in range(4)]
    ours = [[sum(w * x for w, x in zip(weight[o], row, strict=True)) + bias[o] for o in range(6)] for row in pooled]
    torch.manual_seed(7)
    total = 0.0
    for u in random_directions(3, t).tolist():
        a, b = (sorted(sum(p * q for p, q in zip(row, u, strict=True)) for row in x) for x in (ours, t.tolist()))
        total += sum((p - q) ** 2 for p, q in zip(a, b, strict=True))
    batch = batch_of(4, torch.zeros(4))
    torch.manual_seed(7)
    found = method.loss(method.project(student), teacher, batch, 0.0)["transport"]
    assert found.item() == pytest.approx(total / 12, rel=1e-9)

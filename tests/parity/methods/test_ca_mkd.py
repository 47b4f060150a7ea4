"""CA-MKD against the formula of the paper, as loops."""

from __future__ import annotations

import math

import pytest
import torch
from kit.batches import batch_of
from kit.features import drawn
from kit.naive import softmax

from stillroom.methods.ca_mkd import CAMKD
from stillroom.types import Output


def weights(teachers, label):
    """w_k = (1 - exp(ce_k) / sum_j exp(ce_j)) / (K - 1)."""
    shares = softmax([-math.log(softmax(logits)[label]) for logits in teachers])
    return [(1 - share) / (len(teachers) - 1) for share in shares]


def naive(student, teachers, labels, temperature):
    """Zhang et al. 2022: sum_k w_k T^2 KL(p_k || p_s), the mean over images."""
    total = 0.0
    for i, label in enumerate(labels):
        q = softmax(student[i], temperature)
        for w, logits in zip(weights([one[i] for one in teachers], label), (one[i] for one in teachers), strict=True):
            p = softmax(logits, temperature)
            total += w * temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(labels)


@pytest.fixture
def said():
    student, teachers = drawn(5, 6) * 2, [drawn(5, 6, seed=seed) * 2 for seed in (1, 2, 3)]
    return student, teachers, torch.tensor([3, 0, 5, 1, 1])


def ask(method, student, teachers, target, ours=None, theirs=None):
    method.bind_taps(("s",) * 3, ("1/t", "2/t", "3/t"))
    taps = {f"{n}/pred": one for n, one in enumerate(teachers, 1)}
    taps |= {f"{n}/t": one for n, one in enumerate(theirs or [], 1)}
    seen = Output(pred=student, taps={} if ours is None else {"s": ours})
    heard = Output(pred=torch.stack(teachers).mean(0), taps=taps)
    method.setup(seen, heard)
    batch = batch_of(5, target)
    return method.double().loss(method.project(seen), heard, batch, 0.0)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_predictions(said, temperature):
    student, teachers, target = said
    found = ask(CAMKD(temperature=temperature), student, teachers, target)
    expected = naive(student.tolist(), [one.tolist() for one in teachers], target.tolist(), temperature)
    assert {name: value.item() for name, value in found.items()} == pytest.approx({"kl": expected}, rel=1e-9)


def test_features(said):
    """sum_k w_k |r_k(s) - t_k|^2 / D_k, the mean over images; r_k linear, maps averaged over their places."""
    student, teachers, target = said
    ours, theirs = drawn(5, 3, 2, 2), [drawn(5, 4, seed=7), drawn(5, 2, 3, 3, seed=8), drawn(5, 4, seed=9)]
    method = CAMKD(features=50.0)
    found = ask(method, student, teachers, target, ours, theirs)
    total = 0.0
    for i, label in enumerate(target.tolist()):
        w = weights([one[i].tolist() for one in teachers], label)
        pooled = [ours[i, c].mean().item() for c in range(3)]
        for k, projection in enumerate(method.projections):
            goal = theirs[k][i] if theirs[k].ndim == 2 else theirs[k][i].mean((1, 2))
            apart = [
                projection.bias[d].item()
                + sum(projection.weight[d, c].item() * pooled[c] for c in range(3))
                - goal[d].item()
                for d in range(len(goal))
            ]
            total += w[k] * sum(x * x for x in apart) / len(apart)
    assert found["features"].item() == pytest.approx(50 * total / 5, rel=1e-9)

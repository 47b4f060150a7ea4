"""What weights are for, on scikit-learn's 1,797 digits: one of three teachers talks noise (techniques.md 27)."""

from __future__ import annotations

import pytest
import torch
from kit.mlp import trained
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from stillroom.methods.ca_mkd import ca_mkd_loss, teacher_weights

TRAIN, SHOWN, NOISE = 1200, 200, 10.0
"""Images that the two good teachers learn from, those that the student sees, and how loud the third one is.

Noise of its own for each image is averaged away where there are many images: with all 1,200 the two ways of weighting
are within a point of each other.
"""


def two_ways(seed):
    """Test accuracy of a student whose teachers are weighted by confidence, and of one to whom all count alike."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(seed))
    x, y = torch.tensor(digits.data, dtype=torch.float32)[order] / 16, torch.tensor(digits.target)[order]
    few, labels = x[:SHOWN], y[:SHOWN]
    good = [
        trained((64, 256, 256, 10), first, lambda z: cross_entropy(z, y[:TRAIN]), x[:TRAIN], 60)(few)
        for first in (seed, 50 + seed)
    ]
    noise = NOISE * torch.randn(SHOWN, 10, generator=torch.Generator().manual_seed(seed))
    teachers = torch.stack([*good, noise])
    adaptive = teacher_weights(torch.stack([cross_entropy(z, labels, reduction="none") for z in teachers]))
    found = []
    for weights in (adaptive, torch.full_like(adaptive, 1 / 3)):
        loss = lambda z, weights=weights: ca_mkd_loss(z, teachers, weights, 4.0)  # noqa: E731
        student = trained((64, 32, 10), 100 + seed, loss, few, 300)
        found.append((student(x[TRAIN:]).argmax(1) == y[TRAIN:]).double().mean().item())
    return found


@pytest.mark.slow
def test_a_teacher_of_noise_is_not_believed():
    """techniques.md 27: adaptive weights are at least a point better than equal ones over five seeds."""
    found = torch.tensor([two_ways(seed) for seed in range(5)])
    adaptive, uniform = found.mean(0).tolist()
    assert adaptive >= uniform + 0.01
    assert (found[:, 0] > found[:, 1]).all()

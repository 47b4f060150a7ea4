"""What soft targets are for, on scikit-learn's 1,797 digits: few labels, and a class nobody shows (techniques.md 1)."""

from __future__ import annotations

import functools

import pytest
import torch
from kit.mlp import trained
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from stillroom.methods.hard import hard_loss
from stillroom.methods.hinton import hinton_loss

TRAIN, LABELLED, MISSING = 1200, 50, 3


@functools.cache
def split(seed):
    """1,200 training images and 597 test images in an order of their own: pixels in 0..1, labels."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(seed))
    x, y = torch.tensor(digits.data, dtype=torch.float32)[order] / 16, torch.tensor(digits.target)[order]
    return x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


@functools.cache
def teacher(seed):
    x, y, _, _ = split(seed)
    return trained((64, 256, 256, 10), seed, lambda z: cross_entropy(z, y), x, 60)


def student(seed, loss, x):
    return trained((64, 32, 10), 100 + seed, loss, x, 300)


def accuracy(network, x, y):
    return (network(x).argmax(1) == y).double().mean().item()


def few_labels(seed):
    """Test accuracy of the teacher, of a student of 50 labels, and of one taught on all images without a label."""
    x, y, seen, truth = split(seed)
    said = teacher(seed)(x)
    alone = student(seed, lambda z: cross_entropy(z, y[:LABELLED]), x[:LABELLED])
    taught = student(seed, lambda z: hinton_loss(z, said, 4.0), x)
    return [accuracy(network, seen, truth) for network in (teacher(seed), alone, taught)]


def recall(logits, truth):
    return (logits[truth == MISSING].argmax(1) == MISSING).double().mean().item()


def missing_class(seed):
    """Recall on the digit that was not shown: hard labels, soft ones, soft ones with the class's bias put right."""
    x, y, seen, truth = split(seed)
    shown = x[y != MISSING]
    said = teacher(seed)(shown)
    hard = student(seed, lambda z: hard_loss(z, said), shown)
    soft = student(seed, lambda z: hinton_loss(z, said, 8.0), shown)
    pool = soft(x)
    others = pool.clone()
    others[:, MISSING] = -torch.inf
    shift = torch.zeros(10)
    shift[MISSING] = (others.amax(1) - pool[:, MISSING]).quantile(0.1)  # then a tenth of the pool is called so
    return recall(hard(seen), truth), recall(soft(seen), truth), recall(soft(seen) + shift, truth)


def check_few_labels(seeds):
    found = torch.tensor([few_labels(seed) for seed in seeds])
    of_teacher, alone, taught = found.mean(0).tolist()
    assert of_teacher >= 0.95
    assert taught - alone >= 0.10
    assert (found[:, 2] > found[:, 1]).all()


def check_missing_class(seeds):
    for seed in seeds:
        hard, soft, mended = missing_class(seed)
        assert hard == 0.0
        assert soft > 0.0
        assert mended >= 0.75


@pytest.mark.slow
def test_fifty_labels_against_soft_targets_without_labels():
    """techniques.md 1.3: 81.5 % -> 96.3 % there; the mean gain is at least 10 points."""
    check_few_labels(range(5))


def test_a_class_that_is_never_shown():
    """techniques.md 1.4: hard labels never say it; soft ones do once its bias is set from an unlabelled pool."""
    check_missing_class(range(5))


@pytest.mark.slow
def test_both_over_more_seeds():
    """techniques.md 1.3 and 1.4."""
    check_few_labels(range(5, 15))
    check_missing_class(range(5, 15))

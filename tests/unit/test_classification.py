"""What labels charge a classifier: alone, mixed of two images, smoothed, and where they are not known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillroom.tasks.classification import Classification
from stillroom.types import Batch, Mixed, Output

seeds = st.integers(0, 2**31)


def batch(labels, mixed=None):
    labels = torch.as_tensor(labels)
    return Batch(images=torch.zeros(len(labels), 1, 2, 2), target=labels, keys=torch.arange(len(labels)), mixed=mixed)


def drawn(seed, images=5, classes=4):
    """Logits, both labels (some unknown) and shares."""
    torch.manual_seed(seed)
    labels, others = torch.randint(-1, classes, (2, images))
    return torch.randn(images, classes), labels, Mixed(target=others, share=0.5 + torch.rand(images) / 2)


def charged(logits, labels, smoothing=0.0, mixed=None):
    return Classification(smoothing=smoothing).loss(Output(pred=logits), batch(labels, mixed))["ce"]


def by_hand(logits, label, smoothing):
    """Cross-entropy of one image with its smoothed label; 0 where there is none."""
    if label < 0:
        return 0.0
    peak = max(logits)
    total = peak + math.log(sum(math.exp(z - peak) for z in logits))
    wanted = [(1 - smoothing) * (k == label) + smoothing / len(logits) for k in range(len(logits))]
    return -sum(p * (z - total) for p, z in zip(wanted, logits, strict=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@given(seed=seeds)
def test_each_label_charges_its_share(smoothing, seed):
    logits, labels, mixed = drawn(seed)
    rows = list(zip(logits.tolist(), labels.tolist(), mixed.target.tolist(), mixed.share.tolist(), strict=True))
    alone = [by_hand(z, y, smoothing) for z, y, _, _ in rows]
    both = [s * by_hand(z, y, smoothing) + (1 - s) * by_hand(z, other, smoothing) for z, y, other, s in rows]
    assert charged(logits, labels, smoothing).item() == pytest.approx(sum(alone) / 5, rel=1e-5, abs=1e-6)
    assert charged(logits, labels, smoothing, mixed).item() == pytest.approx(sum(both) / 5, rel=1e-5, abs=1e-6)


@given(seeds)
def test_known_labels_charge_what_torch_says(seed):
    logits, labels, _ = drawn(seed)
    labels = labels.clamp_min(0)
    expected = torch.nn.functional.cross_entropy(logits.requires_grad_(), labels)
    ours = charged(logits, labels)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.equal(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, expected)))


@given(seeds)
def test_of_an_image_of_two_halves_of_one_class_nothing_changes(seed):
    logits, labels, mixed = drawn(seed)
    same = Mixed(target=labels, share=mixed.share)
    assert charged(logits, labels, mixed=same).item() == pytest.approx(charged(logits, labels).item(), rel=1e-5)
    whole = Mixed(target=mixed.target, share=torch.ones(5))
    assert charged(logits, labels, mixed=whole).item() == charged(logits, labels).item()


def test_nothing_known_charges_nothing_with_a_gradient_of_zeros():
    logits = torch.randn(3, 4, requires_grad=True)
    unknown = torch.full((3,), -1)
    loss = charged(logits, unknown, smoothing=0.1, mixed=Mixed(target=unknown, share=torch.full((3,), 0.7)))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0


@given(seeds)
def test_the_mean_is_the_same_however_the_batch_is_cut(seed):
    """So accumulation and processes change nothing, wherever the unknown labels lie."""
    logits, labels, mixed = drawn(seed, images=6)
    whole = batch(labels, mixed)
    task = Classification()
    parts = [
        task.loss(Output(pred=z), part)["ce"].item() for z, part in zip(logits.chunk(3), whole.split(3), strict=True)
    ]
    assert sum(parts) / 3 == pytest.approx(task.loss(Output(pred=logits), whole)["ce"].item(), rel=1e-5, abs=1e-6)

"""Hinton's loss against the paper's equation, written as naive loops in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from kit.batches import batch_of
from kit.naive import pixels, softmax

from stillroom.methods.hinton import Hinton, hinton_loss
from stillroom.types import Output

BATCH = batch_of(4, torch.zeros(4))


def naive_hinton(student, teacher, temperatures):
    """T^2 sum_k p_t(k) (log p_t(k) - log p_s(k)), mean over images: Hinton et al. 2015, section 2. A T for each."""
    total = 0.0
    for z_s, z_t, temperature in zip(student, teacher, temperatures, strict=True):
        p_s, p_t = softmax(z_s, temperature), softmax(z_t, temperature)
        total += temperature**2 * sum(t * (math.log(t) - math.log(s)) for s, t in zip(p_s, p_t, strict=True))
    return total / len(student)


def two(*shape, seed=0):
    torch.manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64) * 2, torch.randn(shape, dtype=torch.float64) * 2


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_hinton(temperature):
    student, teacher = two(8, 10)
    expected = naive_hinton(student.tolist(), teacher.tolist(), [temperature] * 8)
    assert hinton_loss(student, teacher, temperature).item() == pytest.approx(expected, rel=1e-9)


def test_a_temperature_for_each_row():
    student, teacher = two(4, 10)
    heat = [0.5, 1.0, 4.0, 20.0]
    expected = naive_hinton(student.tolist(), teacher.tolist(), heat)
    found = hinton_loss(student, teacher, torch.tensor(heat, dtype=torch.float64)[:, None])
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_a_temperature_for_each_pixel():
    """Rows of [B, K, H, W] are its pixels, image by image, line by line."""
    student, teacher = two(2, 5, 3, 2)
    heat = [1.0 + m for m in range(12)]
    found = hinton_loss(student, teacher, torch.tensor(heat, dtype=torch.float64)[:, None])
    assert found.item() == pytest.approx(naive_hinton(pixels(student), pixels(teacher), heat), rel=1e-9)


def test_the_method():
    student, teacher = two(4, 7)
    found = Hinton().loss(Output(pred=student), Output(pred=teacher), BATCH, 0.0)
    assert list(found) == ["kl"]
    assert found["kl"].item() == pytest.approx(naive_hinton(student.tolist(), teacher.tolist(), [4.0] * 4), rel=1e-9)


def test_standardised():
    """Sun et al. 2024, eq. 5: z -> (z - mean) / std with the unbiased deviation, then Hinton's loss."""
    student, teacher = two(4, 7, seed=2)

    def standard(rows):
        out = []
        for row in rows:
            mean = sum(row) / len(row)
            std = math.sqrt(sum((z - mean) ** 2 for z in row) / (len(row) - 1))
            out.append([(z - mean) / (std + 1e-7) for z in row])
        return out

    expected = naive_hinton(standard(student.tolist()), standard(teacher.tolist()), [2.0] * 4)
    method = Hinton(temperature=2.0, standardised=True)
    found = method.loss(Output(pred=student), Output(pred=teacher), BATCH, 0.0)["kl"]
    assert found.item() == pytest.approx(expected, rel=1e-9)

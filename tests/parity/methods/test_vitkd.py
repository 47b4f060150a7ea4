"""ViTKD against loops, and between two real ViTs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from kit.batches import batch_of

from stillroom.methods.vitkd import ViTKD, random_positions, vitkd_loss
from stillroom.models import create_model
from stillroom.types import Batch, Output


def naive(student, teacher, counts):
    """Yang et al. 2022, as their code reduces it: a sum of squares over tokens and channels, divided by B."""
    total = 0.0
    for b in range(len(student)):
        for n in range(student.shape[1]):
            for d in range(student.shape[2]):
                total += counts[b][n] * (student[b, n, d].item() - teacher[b, n, d].item()) ** 2
    return total / len(student)


def test_loops():
    torch.manual_seed(0)
    s, t = torch.randn(3, 9, 4, dtype=torch.float64), torch.randn(3, 9, 4, dtype=torch.float64)
    counts = random_positions(3, 3, 3, 0.5)
    maps = [x.transpose(1, 2).unflatten(2, (3, 3)) for x in (s, t)]
    assert vitkd_loss(*maps).item() == pytest.approx(naive(s, t, [[1] * 9] * 3), rel=1e-9)
    expected = naive(s, t, counts.flatten(1).tolist())
    assert vitkd_loss(*maps, counts).item() == pytest.approx(expected, rel=1e-9)


def test_the_class_as_the_authors_reduce_it():
    """alpha x sum / B over the early blocks; beta x sum / B / share over the masked tokens of the generated last."""
    torch.manual_seed(1)
    method = ViTKD(student_taps=("a", "b", "c"), teacher_taps=("a", "b", "c"))
    student, teacher = (
        Output(pred=torch.zeros(2, 5), taps={k: torch.randn(2, 10, width, dtype=torch.float64) for k in "abc"})
        for width in (3, 5)
    )
    method.setup(student, teacher)
    method.double()
    with torch.no_grad():
        method.token.normal_()
    ours = {
        k: student.taps[k][:, 1:] @ layer.weight[:, :, 0, 0].T + layer.bias
        for k, layer in zip("abc", method.align, strict=True)
    }
    theirs = {k: x[:, 1:] for k, x in teacher.taps.items()}
    mimic = 3e-5 * sum(naive(ours[k], theirs[k], [[1] * 9] * 2) for k in "ab")

    torch.manual_seed(5)
    hidden = random_positions(2, 3, 3, 0.5).flatten(1)
    grid = torch.zeros(2, 5, 3, 3, dtype=torch.float64)
    for b in range(2):
        for n in range(9):
            grid[b, :, n // 3, n % 3] = method.token if hidden[b, n] else ours["c"][b, n]
    first, _, second = method.generate
    made = F.conv2d(F.conv2d(grid, first.weight, first.bias, padding=1).clamp_min(0), second.weight, padding=1)
    made = made + second.bias[:, None, None]
    generate = 3e-6 / 0.5 * naive(made.flatten(2).transpose(1, 2), theirs["c"], hidden.tolist())

    batch = batch_of(2, torch.zeros(2))
    torch.manual_seed(5)
    found = method.loss(method.project(student), teacher, batch, 0.0)
    assert found["mimic"].item() == pytest.approx(mimic, rel=1e-9)
    assert found["generate"].item() == pytest.approx(generate, rel=1e-9)


def test_a_vit_teaches_a_narrower_one():
    torch.manual_seed(2)
    taps = ("blocks.0", "blocks.1", "blocks.5")
    student = create_model("timm/test_vit", classes=5, channels=3, size=32, img_size=64)
    teacher = create_model("timm/test_vit2", classes=5, channels=3, size=32, img_size=64).eval()
    taught_taps = ("blocks.0", "blocks.1", f"blocks.{len(teacher.module.blocks) - 1}")
    method = ViTKD(student_taps=taps, teacher_taps=taught_taps)
    batch = Batch(images=torch.rand(4, 3, 32, 32), target=torch.zeros(4), keys=torch.arange(4))
    with torch.no_grad():
        taught = teacher(batch.images, taught_taps)
        method.setup(student(batch.images, taps), taught)

    def charge():
        torch.manual_seed(9)
        return method.loss(method.project(student(batch.images, taps)), taught, batch, 0.0)

    first = {name: value.item() for name, value in charge().items()}
    optimizer = torch.optim.AdamW([*student.parameters(), *method.parameters()], lr=3e-3)
    for _ in range(10):
        optimizer.zero_grad()
        sum(charge().values()).backward()
        optimizer.step()
    last = charge()
    assert last["mimic"] < 0.7 * first["mimic"] and last["generate"] < first["generate"]

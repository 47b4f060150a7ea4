"""VkD against loops, and on a real ViT."""

from __future__ import annotations

import math

import pytest
import torch
from kit.batches import batch_of

from stillroom.methods.vkd import VkD, vkd_loss
from stillroom.models import create_model
from stillroom.types import Batch, Output


def naive(student, teacher):
    """Miles et al. 2024, as their code reduces it: mean smooth-L1 of student and layer-normalised teacher."""
    total = 0.0
    for z_s, z_t in zip(student, teacher, strict=True):
        mean = sum(z_t) / len(z_t)
        var = sum((z - mean) ** 2 for z in z_t) / len(z_t)
        for s, t in zip(z_s, z_t, strict=True):
            apart = abs(s - (t - mean) / math.sqrt(var + 1e-5))
            total += 0.5 * apart**2 if apart < 1 else apart - 0.5
    return total / (len(student) * len(student[0]))


def test_loops():
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 7, dtype=torch.float64) * 2, torch.randn(5, 7, dtype=torch.float64) * 3
    assert vkd_loss(student, teacher).item() == pytest.approx(naive(student.tolist(), teacher.tolist()), rel=1e-9)


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 6), (6, 4), (5, 5)])
def test_the_class_averages_patches_and_turns_them(inputs, outputs):
    torch.manual_seed(1)
    tokens = torch.randn(3, 10, inputs, dtype=torch.float64)  # a class token, then 9 patches
    maps = torch.randn(3, outputs, 2, 2, dtype=torch.float64)
    method = VkD(student_taps=("a",), teacher_taps=("b",))
    student, teacher = Output(pred=tokens, taps={"a": tokens}), Output(pred=maps, taps={"b": maps})
    method.setup(student, teacher)
    method.double()
    p = method.rotate[0].linear.weight.tolist()
    ours, theirs = [], []
    for b in range(3):
        mean = [sum(tokens[b, n, d].item() for n in range(1, 10)) / 9 for d in range(inputs)]
        ours.append([sum(p[o][d] * mean[d] for d in range(inputs)) for o in range(outputs)])
        theirs.append([sum(maps[b, o].flatten().tolist()) / 4 for o in range(outputs)])
    batch = batch_of(3, torch.zeros(3))
    found = method.loss(method.project(student), teacher, batch, 0.0)["features"]
    assert found.item() == pytest.approx(naive(ours, theirs), rel=1e-9)


def test_a_resnet_teaches_a_vit():
    torch.manual_seed(2)
    vit = create_model("timm/test_vit", classes=5, channels=3, size=32, img_size=32)
    resnet = create_model("resnet8", classes=5, channels=3, size=32)
    method = VkD(student_taps=("norm",), teacher_taps=("layer3",))
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        taught = resnet.eval()(images, ("layer3",))
        method.setup(vit.eval()(images, ("norm",)), taught)
    batch = Batch(images=images, target=torch.zeros(4), keys=torch.arange(4))
    first = method.loss(method.project(vit(images, ("norm",))), taught, batch, 0.0)["features"]
    optimizer = torch.optim.AdamW([*vit.parameters(), *method.parameters()], lr=3e-3)
    for _ in range(10):
        optimizer.zero_grad()
        method.loss(method.project(vit(images, ("norm",))), taught, batch, 0.0)["features"].backward()
        optimizer.step()
    last = method.loss(method.project(vit(images, ("norm",))), taught, batch, 0.0)["features"]
    assert last < 0.7 * first

"""OFA-KD against loops, and its branches on a real CNN and a real ViT."""

from __future__ import annotations

import math

import pytest
import torch

from stillroom.methods.ofa import OFA, ofa_loss
from stillroom.models import create_model
from stillroom.types import Batch, Output


def softmax(row, temperature):
    powers = [math.exp((z - max(row)) / temperature) for z in row]
    return [power / sum(powers) for power in powers]


def naive(student, teacher, target, eps, temperature):
    """Hao et al. 2023: -sum_c [(p_t + y)^eps - y] log p_s, mean over images."""
    total = 0.0
    for z_s, z_t, label in zip(student, teacher, target, strict=True):
        for c, (s, t) in enumerate(zip(softmax(z_s, temperature), softmax(z_t, temperature), strict=True)):
            y = 1.0 if c == label else 0.0
            total -= ((t + y) ** eps - y) * math.log(s)
    return total / len(student)


@pytest.mark.parametrize("eps", [0.7, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_loops(eps, temperature):
    torch.manual_seed(0)
    student, teacher = torch.randn(8, 10, dtype=torch.float64) * 2, torch.randn(8, 10, dtype=torch.float64) * 2
    target = torch.randint(10, (8,))
    expected = naive(student.tolist(), teacher.tolist(), target.tolist(), eps, temperature)
    assert ofa_loss(student, teacher, target, eps, temperature).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "taps"),
    [("resnet8", ("layer1", "layer2", "layer3")), ("timm/test_vit", ("blocks.1", "blocks.3", "norm"))],
)
def test_the_class_sums_over_the_stages_of_a_real_network(name, taps):
    torch.manual_seed(1)
    arguments = {"img_size": 32} if name.startswith("timm") else {}
    network = create_model(name, classes=5, channels=3, size=32, **arguments).double().eval()
    batch = Batch(images=torch.rand(3, 3, 32, 32).double(), target=torch.tensor([0, 3, 4]), keys=torch.arange(3))
    teacher = Output(pred=torch.randn(3, 5, dtype=torch.float64))
    method = OFA(eps=1.5, student_taps=taps)
    with torch.no_grad():
        student = network(batch.images, taps)
        method.setup(student, teacher)
        method.double()
        found = method.loss(method.project(student), teacher, batch, 0.0)
        said = [_branch(method.branches[i], student.taps[tap]) for i, tap in enumerate(taps)]
    target, logits = batch.target.tolist(), teacher.pred.tolist()
    assert found["pred"].item() == pytest.approx(naive(student.pred.tolist(), logits, target, 1.5, 1.0), rel=1e-9)
    expected = sum(naive(one.tolist(), logits, target, 1.5, 1.0) for one in said)
    assert found["stages"].item() == pytest.approx(expected, rel=1e-9)


def _branch(branch, tap):
    """Depthwise 3x3 of stride 2, 1x1, normalised over an image, ReLU, mean over places, linear: written out."""
    if tap.ndim == 3:
        side = math.isqrt(tap.shape[1])
        tap = tap[:, tap.shape[1] - side**2 :].transpose(1, 2).reshape(len(tap), -1, side, side)
    depth, point, norm, _, _, _, linear = branch
    padded = torch.nn.functional.pad(tap, (1, 1, 1, 1))
    height, width = ((n + 1) // 2 for n in tap.shape[2:])
    small = torch.zeros(len(tap), tap.shape[1], height, width, dtype=tap.dtype)
    for y in range(height):
        for x in range(width):
            window = padded[:, :, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
            small[:, :, y, x] = (window * depth.weight[:, 0]).sum((2, 3))
    mixed = torch.einsum("oc,bchw->bohw", point.weight[:, :, 0, 0], small)
    mean, var = mixed.mean((1, 2, 3), keepdim=True), mixed.var((1, 2, 3), keepdim=True, correction=0)
    normal = (mixed - mean) / (var + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    return normal.clamp_min(0).mean((2, 3)) @ linear.weight.T + linear.bias

"""Each method against the paper's equation, written as naive loops in double precision."""

from __future__ import annotations

import math

import pytest
import torch

from stillroom.methods.fitnet import FitNet
from stillroom.methods.hinton import Hinton, hinton_loss
from stillroom.types import Batch, Output


def softmax(row, temperature):
    top = max(row)
    powers = [math.exp((z - top) / temperature) for z in row]
    return [power / sum(powers) for power in powers]


def naive_hinton(student, teacher, temperature):
    """T^2 sum_k p_t(k) (log p_t(k) - log p_s(k)), mean over images: Hinton et al. 2015, section 2."""
    total = 0.0
    for z_s, z_t in zip(student, teacher, strict=True):
        p_s, p_t = softmax(z_s, temperature), softmax(z_t, temperature)
        total += sum(t * (math.log(t) - math.log(s)) for s, t in zip(p_s, p_t, strict=True))
    return temperature**2 * total / len(student)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_hinton(temperature):
    torch.manual_seed(0)
    student, teacher = torch.randn(8, 10, dtype=torch.float64) * 2, torch.randn(8, 10, dtype=torch.float64) * 2
    expected = naive_hinton(student.tolist(), teacher.tolist(), temperature)
    assert hinton_loss(student, teacher, temperature).item() == pytest.approx(expected, rel=1e-5)


def test_hinton_is_cross_entropy_less_entropy():
    torch.manual_seed(1)
    student, teacher = torch.randn(8, 10), torch.randn(8, 10)
    p = teacher.softmax(1)
    cross = -(p * student.log_softmax(1)).sum(1).mean()
    entropy = -(p * p.log()).sum(1).mean()
    assert hinton_loss(student, teacher, 1.0).item() == pytest.approx((cross - entropy).item(), abs=1e-6)


def test_standardised_hinton_against_loops():
    """Sun et al. 2024, eq. 5: z -> (z - mean) / std with the unbiased deviation, then Hinton's loss."""
    torch.manual_seed(2)
    student, teacher = torch.randn(4, 7, dtype=torch.float64), torch.randn(4, 7, dtype=torch.float64)

    def standard(rows):
        out = []
        for row in rows:
            mean = sum(row) / len(row)
            std = math.sqrt(sum((z - mean) ** 2 for z in row) / (len(row) - 1))
            out.append([(z - mean) / (std + 1e-7) for z in row])
        return out

    expected = naive_hinton(standard(student.tolist()), standard(teacher.tolist()), 2.0)
    method = Hinton(temperature=2.0, standardised=True)
    batch = Batch(images=torch.zeros(4, 1, 2, 2), target=torch.zeros(4), keys=torch.arange(4))
    found = method.loss(Output(pred=student), Output(pred=teacher), batch, 0.0)["kl"]
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_fitnet_is_zero_when_the_regressor_can_invert():
    """techniques.md 13: for an orthogonal map of the student's feature the least-squares regressor leaves nothing."""
    torch.manual_seed(3)
    s = torch.randn(16, 6, 4, 4, dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    t = torch.einsum("oc,bchw->bohw", q, s)
    method = FitNet(student_tap="a", teacher_tap="b")
    method.setup(Output(pred=s, taps={"a": s}), Output(pred=t, taps={"b": t}))
    method.double()
    rows = s.permute(0, 2, 3, 1).reshape(-1, 6)
    solved = torch.linalg.lstsq(rows, t.permute(0, 2, 3, 1).reshape(-1, 6)).solution
    with torch.no_grad():
        method.regress.weight.copy_(solved.T[:, :, None, None])
        method.regress.bias.zero_()
    batch = Batch(images=torch.zeros(16, 1, 2, 2), target=torch.zeros(16), keys=torch.arange(16))
    seen = method.project(Output(pred=s, taps={"a": s}))
    assert method.loss(seen, Output(pred=t, taps={"b": t}), batch, 0.0)["hint"].item() <= 1e-5


def test_fitnet_loops():
    torch.manual_seed(4)
    s, t = torch.randn(2, 3, 2, 2), torch.randn(2, 5, 2, 2)
    method = FitNet(student_tap="a", teacher_tap="b")
    method.setup(Output(pred=s, taps={"a": s}), Output(pred=t, taps={"b": t}))
    weight, bias = method.regress.weight[:, :, 0, 0].tolist(), method.regress.bias.tolist()
    total, count = 0.0, 0
    for b in range(2):
        for o in range(5):
            for y in range(2):
                for x in range(2):
                    said = bias[o] + sum(weight[o][c] * s[b, c, y, x].item() for c in range(3))
                    total, count = total + (said - t[b, o, y, x].item()) ** 2, count + 1
    batch = Batch(images=torch.zeros(2, 1, 2, 2), target=torch.zeros(2), keys=torch.arange(2))
    found = method.loss(method.project(Output(pred=s, taps={"a": s})), Output(pred=t, taps={"b": t}), batch, 0.0)
    assert found["hint"].item() == pytest.approx(total / count, rel=1e-5)

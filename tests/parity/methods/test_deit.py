"""The distillation token's loss against the paper's equations, as loops, on a real ViT."""

from __future__ import annotations

import math

import pytest
import torch
from kit.batches import batch_of
from torch.nn.functional import cross_entropy

from stillroom.methods.deit import DeiT
from stillroom.models import create_model
from stillroom.types import Output


def log_softmax(row, temperature=1.0):
    total = sum(math.exp(z / temperature) for z in row)
    return [z / temperature - math.log(total) for z in row]


def hard(head, teacher):
    """Touvron et al. 2021, eq. 3: -log p_head(the teacher's choice), mean over images."""
    picked = [t.index(max(t)) for t in teacher]
    return -sum(log_softmax(row)[k] for row, k in zip(head, picked, strict=True)) / len(head)


def soft(head, teacher, temperature):
    """Eq. 2: T^2 sum_k p_t (log p_t - log p_head), mean over images."""
    total = 0.0
    for s, t in zip(head, teacher, strict=True):
        log_s, log_t = log_softmax(s, temperature), log_softmax(t, temperature)
        total += sum(math.exp(b) * (b - a) for a, b in zip(log_s, log_t, strict=True))
    return temperature**2 * total / len(head)


def charge(method, head, teacher, pred=None):
    batch = batch_of(len(head))
    pred = torch.zeros_like(head) if pred is None else pred
    return method.loss(Output(pred=pred, taps={"head_dist": head}), Output(pred=teacher), batch, 0.0)


def test_hard_loss():
    """The hard loss equals the hand computation."""
    torch.manual_seed(0)
    head, teacher = torch.randn(6, 5, dtype=torch.float64) * 2, torch.randn(6, 5, dtype=torch.float64) * 2
    assert charge(DeiT(), head, teacher)["hard"].item() == pytest.approx(
        hard(head.tolist(), teacher.tolist()), rel=1e-9
    )
    by_hand = charge(DeiT(), torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([[-1.0, -2.0]]))["hard"]
    assert by_hand.item() == pytest.approx(math.log(4), rel=1e-6)  # the head gives 1/4 to what the teacher chose


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_loss(temperature):
    torch.manual_seed(1)
    head, teacher = torch.randn(6, 5, dtype=torch.float64) * 2, torch.randn(6, 5, dtype=torch.float64) * 2
    expected = soft(head.tolist(), teacher.tolist(), temperature)
    found = charge(DeiT(kind="soft", temperature=temperature), head, teacher)["soft"]
    assert found.item() == pytest.approx(expected, rel=1e-9)
    assert (DeiT().kind, DeiT().temperature, DeiT.weight) == ("hard", 3.0, 0.5)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_the_whole_loss_and_who_learns_from_it(alpha):
    """(1 - a) CE(y, z_cls) + a CE(argmax z_t, z_dist); the gradient to head_dist is 0 when a = 0."""
    torch.manual_seed(2)
    student = create_model("timm/test_vit", classes=5, channels=3, size=32, img_size=32, distilled=True).train()
    images, labels, teacher = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]), torch.randn(4, 5)
    seen = student(images, ("head_dist",))
    term = charge(DeiT(), seen.taps["head_dist"], teacher, seen.pred)["hard"]
    loss = (1 - alpha) * cross_entropy(seen.pred, labels) + alpha * term
    loss.backward()
    features = student.module.forward_features(student.preprocess(images))
    z_cls, z_dist = student.module.head(features[:, 0]), student.module.head_dist(features[:, 1])
    expected = (1 - alpha) * cross_entropy(z_cls, labels).item() + alpha * hard(z_dist.tolist(), teacher.tolist())
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    for parameter in student.module.head_dist.parameters():
        assert (parameter.grad.abs().sum() > 0) == (alpha > 0)
    assert all(p.grad.abs().sum() > 0 for p in student.module.head.parameters())
    assert student.module.dist_token.grad.abs().sum() > 0

"""MiniLM against loops, and its "qk" against the attention that a real ViT computes."""

from __future__ import annotations

import math

import pytest
import torch
from kit.batches import batch_of
from kit.naive import softmax

from stillroom.methods.minilm import MiniLM, minilm_loss
from stillroom.models import create_model
from stillroom.types import Batch, Output


def relation_of(qkv, letters, heads):
    """softmax(a b^T / sqrt(d)) of one image, as heads x tokens x tokens."""
    width = qkv.shape[1] // 3
    a, b = (qkv[:, "qkv".index(letter) * width :][:, :width].tolist() for letter in letters)
    d = width // heads
    return [
        [
            softmax([sum(x * y for x, y in zip(p[h * d :][:d], q[h * d :][:d], strict=True)) / d**0.5 for q in b])
            for p in a
        ]
        for h in range(heads)
    ]


def naive(student, teacher, letters, heads):
    """Wang et al. 2020: KL(teacher || student), a mean over images, heads and tokens."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        for r_s, r_t in zip(relation_of(s, letters, heads), relation_of(t, letters, heads), strict=True):
            for row_s, row_t in zip(r_s, r_t, strict=True):
                total += sum(q * math.log(q / p) for p, q in zip(row_s, row_t, strict=True))
    return total / (len(student) * heads * student.shape[1])


@pytest.mark.parametrize("letters", ["qk", "qq", "kk", "vv"])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_loops(letters, heads):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 3 * 4, dtype=torch.float64), torch.randn(2, 5, 3 * 8, dtype=torch.float64)
    expected = naive(student, teacher, letters, heads)
    assert minilm_loss(student, teacher, letters, heads).item() == pytest.approx(expected, rel=1e-9)


def test_the_class_on_real_vits_and_qk_is_their_attention():
    """With the network's own number of heads, "qk" compares the very attention maps that it computes."""
    torch.manual_seed(1)
    networks = [
        create_model("timm/test_vit", classes=5, channels=3, size=32, img_size=64).double().eval() for _ in range(2)
    ]
    tap, heads = "blocks.5.attn.qkv", networks[0].module.blocks[5].attn.num_heads
    batch = Batch(images=torch.rand(2, 3, 32, 32).double(), target=torch.zeros(2), keys=torch.arange(2))
    maps = [[], []]
    for network, kept in zip(networks, maps, strict=True):
        attention = network.module.blocks[5].attn
        attention.fused_attn = False  # so that the map exists, and dropout sees it
        attention.attn_drop.register_forward_hook(lambda module, given, said, kept=kept: kept.append(given[0]))
    student, teacher = networks[0](batch.images, (tap,)), networks[1](batch.images, (tap,))
    method = MiniLM(student_taps=(tap,), teacher_taps=(tap,), heads=heads)
    method.setup(student, teacher)
    found = method.loss(method.project(student), teacher, batch, 0.0)
    (s,), (t,) = maps
    assert s.shape[1] == heads > 1
    assert found["qk"].item() == pytest.approx((t * (t / s).log()).sum(-1).mean().item(), rel=1e-9)
    assert found["vv"].item() == pytest.approx(naive(student.taps[tap], teacher.taps[tap], "vv", heads), rel=1e-9)
    (found["qk"] + found["vv"]).backward()
    assert networks[0].module.blocks[5].attn.qkv.weight.grad.abs().sum() > 0
    assert networks[0].module.blocks[0].mlp.fc1.weight.grad.abs().sum() > 0


def test_default_relations_and_heads():
    torch.manual_seed(2)
    student, teacher = torch.randn(2, 4, 3 * 16, dtype=torch.float64), torch.randn(2, 4, 3 * 24, dtype=torch.float64)
    method = MiniLM()
    method.bind_taps(("a",), ("b",))
    batch = batch_of(2, torch.zeros(2))
    sides = Output(pred=student, taps={"a": student}), Output(pred=teacher, taps={"b": teacher})
    method.setup(*sides)
    found = method.loss(*sides, batch, 0.0)
    assert list(found) == ["qk", "vv"]
    for letters in found:
        assert found[letters].item() == pytest.approx(naive(student, teacher, letters, 8), rel=1e-9)

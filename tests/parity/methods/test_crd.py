"""CRD against the paper's equations, as loops in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from kit.batches import batch_of

from stillroom.methods import crd
from stillroom.methods.crd import CRD, crd_loss
from stillroom.types import Output


def unit(row):
    return [x / math.hypot(*row) for x in row]


def likeness(a, b, temperature):
    return math.exp(sum(x * y for x, y in zip(a, b, strict=True)) / temperature)


def one_way(anchors, positives, bank, classes, labels, scale, temperature):
    """Tian et al. 2020, eqs. 9 and 19: log h of the pair and log(1 - h) of every stranger, mean over anchors."""
    total = 0.0
    for anchor, positive, label in zip(anchors, positives, labels, strict=True):
        strangers = [row for row, other in zip(bank, classes, strict=True) if other != label or label < 0]
        usual = max(1, len(strangers)) * scale
        e = likeness(anchor, positive, temperature)
        total += math.log(e / (e + usual))
        for row in strangers:
            e = likeness(anchor, row, temperature)
            total += math.log(1 - e / (e + usual))
    return -total / len(anchors)


def usual(anchors, bank, classes, labels, temperature):
    """c: the mean of exp(a.b / T) over strangers."""
    found = [
        likeness(anchor, row, temperature)
        for anchor, label in zip(anchors, labels, strict=True)
        for row, other in zip(bank, classes, strict=True)
        if other != label or label < 0
    ]
    return sum(found) / len(found)


def embedded(layer, rows):
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return [
        unit([b + sum(w * x for w, x in zip(ws, row, strict=True)) for ws, b in zip(weight, bias, strict=True)])
        for row in rows.tolist()
    ]


def ready(**arguments):
    torch.manual_seed(3)
    method = CRD(student_taps=("a",), teacher_taps=("b",), **arguments)
    method.setup(*outputs(torch.zeros(2, 6), torch.zeros(2, 8)))
    return method.double()


def outputs(student, teacher):
    return Output(pred=student, taps={"a": student}), Output(pred=teacher, taps={"b": teacher})


def charge(method, student, teacher, labels):
    batch = batch_of(len(labels), torch.tensor(labels))
    return method.loss(*outputs(student, teacher), batch, 0.0)["nce"]


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_three_steps_against_loops(temperature):
    """c is measured on the first batch and kept; the memory moves on."""
    method = ready(dim=4, bank=7, temperature=temperature)
    banks = [method.student_bank.tolist(), method.teacher_bank.tolist()]
    classes, place, scales = [-1] * 7, 0, None
    generator = torch.Generator().manual_seed(0)
    for labels in ([0, 1, 2], [0, -1, 1], [2, 2, 0]):
        student = torch.randn(3, 6, generator=generator, dtype=torch.float64)
        teacher = torch.randn(3, 8, generator=generator, dtype=torch.float64)
        s, t = embedded(method.student_embed, student), embedded(method.teacher_embed, teacher)
        scales = scales or (
            usual(s, banks[1], classes, labels, temperature),
            usual(t, banks[0], classes, labels, temperature),
        )
        expected = one_way(s, t, banks[1], classes, labels, scales[0], temperature)
        expected += one_way(t, s, banks[0], classes, labels, scales[1], temperature)
        assert charge(method, student, teacher, labels).item() == pytest.approx(expected, rel=1e-9)
        for ours, theirs, label in zip(s, t, labels, strict=True):
            banks[0][place], banks[1][place], classes[place] = ours, theirs, label
            place = (place + 1) % 7
    assert method.scales.tolist() == pytest.approx(scales, rel=1e-9)
    assert method.classes.tolist() == classes and method.place == place


def test_defaults_are_the_authors():
    method = CRD()
    assert (method.dim, method.bank, method.temperature, CRD.weight) == (128, 16384, 0.07, 0.8)


def test_all_processes_hold_the_same_memory(monkeypatch):
    """With the other process's rows gathered, half a batch costs what the whole does and leaves the same memory."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    teacher = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    labels = [0, 1, 2, 0, 1, 2]
    one, two = ready(dim=4, bank=7), ready(dim=4, bank=7)
    whole = charge(one, student, teacher, labels)
    with torch.no_grad():
        s, t = two.embeddings(*outputs(student[3:], teacher[3:]))
    others = iter([s, t, torch.tensor(labels[3:])])
    monkeypatch.setattr(crd, "gather_rows", lambda x: torch.cat([x, next(others)]))
    half = charge(two, student[:3], teacher[:3], labels[:3])
    torch.testing.assert_close(half, whole, rtol=1e-12, atol=0)
    for a, b in zip(one.buffers(), two.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_a_gradient_reaches_the_anchors_alone():
    """The student learns from where its own embedding looks for the teacher's, not from being looked for."""
    method = ready(dim=4, bank=7).eval()
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(3, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    (found,) = torch.autograd.grad(charge(method, student, teacher, [0, 1, 2]), student)
    s, t = method.embeddings(*outputs(student, teacher))
    counted = torch.ones(3, 7, dtype=torch.bool)
    scale = torch.exp(s.detach() @ method.teacher_bank.T / method.temperature).mean()
    alone = crd_loss(s, t.detach(), method.teacher_bank, counted, scale, method.temperature)
    (wanted,) = torch.autograd.grad(alone, student)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)

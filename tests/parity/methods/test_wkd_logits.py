"""WKD-L against its equations, as loops, and its prices against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from kit.method_inputs import logit_terms
from kit.naive import softmax

from stillroom.methods import wkd_logits
from stillroom.methods.wkd_logits import WKDLogits, class_cost, wkd_logits_loss
from stillroom.types import Output


def smeared(a, b, cost, reg):
    """<P, cost> of Sinkhorn's plan, iterated outside logarithms until nothing moves."""
    n = range(len(a))
    kernel = [[math.exp(-cost[i][j] / reg) for j in n] for i in n]
    u = [1.0 for _ in n]
    for _ in range(1000):
        v = [b[j] / sum(kernel[i][j] * u[i] for i in n) for j in n]
        u = [a[i] / sum(kernel[i][j] * v[j] for j in n) for i in n]
    return sum(u[i] * kernel[i][j] * v[j] * cost[i][j] for i in n for j in n)


def naive(student, teacher, target, cost, *, gamma, temperature, reg=0.1):
    """Lv et al. 2024: -p_t log p_s of the true class at T = 1; gamma times transport among the others at T."""
    first = second = 0.0
    for z_s, z_t, y in zip(student, teacher, target, strict=True):
        first -= softmax(z_t, 1)[y] * math.log(softmax(z_s, 1)[y])
        left = [k for k in range(len(z_s)) if k != y]
        q_s, q_t = (softmax([row[k] for k in left], temperature) for row in (z_s, z_t))
        second += smeared(q_s, q_t, [[cost[i][j] for j in left] for i in left], reg)
    return first / len(student), gamma * second / len(student)


def drawn(images, classes, seed=0):
    torch.manual_seed(seed)
    student, teacher = (2 * torch.randn(images, classes).double() for _ in range(2))
    return student, teacher, torch.randint(classes, (images,))


def ready(classes, **arguments):
    method = WKDLogits(**arguments)
    method.setup(Output(pred=torch.zeros(2, classes)), Output(pred=torch.zeros(2, classes)))
    return method.double()


def prices(logits, share):
    """1 - exp(-(1 - share rho)), rho numpy's correlation of the columns, rows less their mean; 0 on the diagonal."""
    rho = np.corrcoef(logits - logits.mean(1, keepdims=True), rowvar=False)
    cost = 1 - np.exp(-(1 - share * rho))
    np.fill_diagonal(cost, 0)
    return cost


@pytest.mark.parametrize("temperature", [2.0, 8.0])
def test_against_loops(temperature):
    student, teacher, target = drawn(4, 6)
    cost = torch.from_numpy(prices(teacher.numpy(), 1.0))
    expected = naive(
        student.tolist(), teacher.tolist(), target.tolist(), cost.tolist(), gamma=30.0, temperature=temperature
    )
    found = wkd_logits_loss(
        student, teacher, target, cost, gamma=30.0, temperature=temperature, reg=0.1, iterations=1000
    )
    assert [x.item() for x in found] == pytest.approx(expected, rel=1e-9)


def test_the_method():
    """Prices from the images seen so far, this batch's among them; defaults gamma 600, T 8, kappa 1, lambda 0.05."""
    method, (student, teacher, target) = ready(6, reg=0.2), drawn(12, 6, 1)
    logit_terms(method, student[:8], teacher[:8], target[:8])
    found = logit_terms(method, student[8:], teacher[8:], target[8:])
    cost, last = prices(teacher.numpy(), 12 / (12 + 6)), [x[8:] for x in (student, teacher, target)]
    expected = naive(*(x.tolist() for x in last), cost, gamma=600.0, temperature=8.0, reg=0.2)
    assert [value.item() for value in found.values()] == pytest.approx(expected, rel=1e-9)
    plain = ready(6)
    plain.load_state_dict(method.state_dict())
    said = logit_terms(plain.eval(), *last).values()
    expected = wkd_logits_loss(*last, torch.from_numpy(cost), gamma=600.0, temperature=8.0, reg=0.05, iterations=200)
    assert [value.item() for value in said] == pytest.approx([value.item() for value in expected], rel=1e-9)
    assert WKDLogits.weight == 1.0 and list(found) == ["target", "transport"]


def test_counting_in_parts_is_counting_at_once():
    method = ready(5)
    torch.manual_seed(2)
    teacher = 3 * torch.randn(41, 5).double() + torch.arange(5)
    for part in teacher.split([1, 7, 20, 13]):
        cost = method._cost(part)
    centred = teacher - teacher.mean(1, keepdim=True)
    assert method.seen == 41 and torch.allclose(method.average, centred.mean(0), rtol=1e-12)
    assert torch.allclose(method.covariance, torch.cov(centred.T, correction=0), rtol=1e-10, atol=1e-12)
    assert np.allclose(cost.numpy(), prices(teacher.numpy(), 41 / 46), atol=1e-12)


def test_orthogonal_features_give_the_classifier_s_cosines():
    """Of uncorrelated features 1 - correlation is 1 - cosine of the classifier's rows, the authors' second way."""
    torch.manual_seed(3)
    features = torch.linalg.qr(torch.randn(50, 8).double()).Q
    features = torch.linalg.qr(features - features.mean(0)).Q
    weight = torch.randn(4, 8).double()
    weight -= weight.mean(0)
    cosines = torch.nn.functional.normalize(weight) @ torch.nn.functional.normalize(weight).T
    expected = (1 - torch.exp(-(1 - cosines))).fill_diagonal_(0)
    assert torch.allclose(class_cost(torch.cov((features @ weight.T).T), 1.0, 1.0), expected, atol=1e-9)


def test_the_images_counted_are_those_of_all_processes(monkeypatch):
    """With the other process's sums added, half a batch leaves what the whole one does."""
    student, teacher, target = drawn(12, 5, 4)
    whole, half = ready(5), ready(5)
    logit_terms(whole, student, teacher, target)
    rest = teacher[6:] - teacher[6:].mean(1, keepdim=True)
    average = (teacher - teacher.mean(1, keepdim=True)).mean(0)
    others = iter([torch.tensor(6), rest.sum(0), (rest - average).T @ (rest - average)])
    monkeypatch.setattr(wkd_logits, "all_reduce_sum", lambda x: x + next(others))
    logit_terms(half, student[:6], teacher[:6], target[:6])
    assert half.seen == 12
    for name in ("average", "covariance"):
        assert torch.allclose(getattr(half, name), getattr(whole, name), rtol=1e-10, atol=1e-12)

"""Properties of WKD-L, whatever the numbers (techniques.md 4)."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.errors import StillroomError
from stillroom.methods._transport import marginal_error, plan, scalings
from stillroom.methods.wkd_logits import WKDLogits, class_cost, wkd_logits_loss
from stillroom.types import Batch, Output

seeds = st.integers(0, 2**31)
shapes = st.tuples(st.integers(2, 6), st.integers(3, 8))


def drawn(shape, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(shape, generator=generator, dtype=dtype) * 3 for _ in range(2))
    return student, teacher, torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)


def ready(classes, **arguments):
    method = WKDLogits(**arguments)
    method.setup(Output(pred=torch.zeros(2, classes)), Output(pred=torch.zeros(2, classes)))
    return method.double()


def charged(method, student, teacher, target):
    batch = Batch(images=torch.zeros(len(student), 1, 2, 2), target=target, keys=torch.arange(len(student)))
    return method.loss(Output(pred=student), Output(pred=teacher), batch, 0.5)


@given(shapes, seeds)
@settings(max_examples=30, deadline=None)
def test_never_below_zero_and_nearly_zero_at_equality(shape, seed):
    """What is left at equality is the smearing, 0.00136 in techniques.md 4; it goes with reg."""
    student, teacher, target = drawn(shape, seed)
    cost = class_cost(torch.zeros(shape[1], shape[1]).double(), 0.0, 1.0)
    apart = wkd_logits_loss(student, teacher, target, cost, gamma=1.0, temperature=2.0)
    same = wkd_logits_loss(teacher, teacher, target, cost, gamma=1.0, temperature=2.0)
    assert all(part >= 0 for part in apart) and same[1] <= 1e-4 and same[1] < apart[1]


@given(shapes, seeds, st.floats(-50, 50))
@settings(max_examples=30, deadline=None)
def test_shifts_orders_and_the_true_logit_change_nothing(shape, seed, constant):
    student, teacher, target = drawn(shape, seed)
    cost = class_cost(torch.cov(teacher.T), 1.0, 1.0)
    found = wkd_logits_loss(student, teacher, target, cost, gamma=1.0, temperature=4.0)
    rows, classes = torch.randperm(shape[0]), torch.randperm(shape[1])
    mixed = (x[rows][:, classes] + constant for x in (student, teacher))
    moved = wkd_logits_loss(
        *mixed, classes.argsort()[target[rows]], cost[classes][:, classes], gamma=1.0, temperature=4.0
    )
    assert all(torch.isclose(a, b, rtol=1e-6, atol=1e-9) for a, b in zip(found, moved, strict=True))
    louder = student.scatter_add(1, target[:, None], torch.ones_like(student))
    assert torch.equal(wkd_logits_loss(louder, teacher, target, cost, gamma=1.0, temperature=4.0)[1], found[1])


def test_confusing_near_classes_costs_less():
    """The student believes in class 1 or 3 where the teacher believes in 2, which is much like 1."""
    cost = class_cost(torch.tensor([[1, 0, 0, 0], [0, 1, 0.9, 0], [0, 0.9, 1, 0], [0, 0, 0, 1]]).double(), 1.0, 1.0)
    teacher = torch.tensor([[9.0, 0, 5, 0]]).double()
    near, far = torch.tensor([[9.0, 5, 0, 0]]).double(), torch.tensor([[9.0, 0, 0, 5]]).double()
    charges = [
        wkd_logits_loss(s, teacher, torch.tensor([0]), cost, gamma=1.0, temperature=1.0)[1].item() for s in (near, far)
    ]
    assert charges[0] < 0.3 * charges[1]


def test_prices_begin_equal_and_end_as_the_correlations_have_them():
    method = ready(4)
    start = class_cost(method.covariance, 0.0, 1.0)
    assert torch.allclose(start, (1 - torch.exp(torch.tensor(-1.0))) * (1 - torch.eye(4)).double(), atol=1e-7)
    teacher = torch.randn(5000, 2).double() @ torch.tensor([[1.0, 0.9, 0, 0], [0, 0, 1.0, -1.0]]).double()
    cost = method._cost(teacher)
    assert cost[0, 1] < cost[0, 2] < 0.8 and cost[2, 3] > cost[0, 2] and not cost.diagonal().any()
    assert torch.equal(cost, cost.T) and cost.max() < 1 - 0.13  # d is at most 2: 1 - exp(-2)
    assert class_cost(torch.zeros(3, 3), 1.0, 1.0)[0, 1].item() == pytest.approx(0.632, abs=1e-3)


def test_only_training_counts():
    student, teacher, target = drawn((6, 4), 0)
    method = ready(4).eval()
    charged(method, student, teacher, target)
    assert method.seen == 0 and not method.covariance.any()
    charged(method.train(), student, teacher, target)
    assert method.seen == 6 and method.covariance.any()


def test_the_same_after_a_resume():
    """What was counted is in the state: the second half of a run goes on as if nothing had happened."""
    student, teacher, target = drawn((12, 5), 0)
    one = ready(5)
    charged(one, student[:6], teacher[:6], target[:6])
    two = ready(5)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    ends = [charged(method, student[6:], teacher[6:], target[6:]) for method in (one, two)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    fresh = charged(ready(5), student[6:], teacher[6:], target[6:])
    assert not torch.equal(fresh["transport"], ends[0]["transport"])


@pytest.mark.parametrize("classes", [6, 10, 100])
@pytest.mark.parametrize(("spread", "temperature"), [(3, 8), (8, 8), (3, 2), (8, 2), (20, 2)])
def test_the_iterations_suffice(classes, spread, temperature):
    """techniques.md 4: what the plan misses stays below 0.01 at the defaults, for the authors' two temperatures."""
    method, worst = ready(classes), 0.0
    for seed in range(3):
        student, teacher, target = drawn((32, classes), seed)
        cost = method._cost(teacher)
        true = torch.arange(classes) == target[:, None]
        logs = [(z / 3 * spread / temperature).masked_fill(true, -torch.inf).log_softmax(1) for z in (student, teacher)]
        found = plan(*scalings(*logs, cost, reg=method.reg, iterations=method.iterations), cost, reg=method.reg)
        worst = max(worst, marginal_error(found, *logs).max().item())
    assert worst <= 1e-2


@given(st.integers(0, 200))
@settings(max_examples=3, deadline=None)
def test_gradient(seed):
    student, teacher, target = drawn((3, 4), seed)
    cost = class_cost(torch.cov(teacher.T), 0.5, 1.0)
    assert torch.autograd.gradcheck(
        lambda s: sum(wkd_logits_loss(s, teacher, target, cost, gamma=1.0, temperature=2.0, iterations=30)),
        student.requires_grad_(),
        atol=1e-4,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype):
    student, teacher, target = drawn((8, 10), 0, torch.float32)
    method = ready(10, gamma=1.0).float().eval()
    big = (student.to(dtype) * 5000).requires_grad_()
    total = sum(charged(method, big, teacher.to(dtype) * 5000, target).values())
    total.backward()
    assert total.isfinite() and big.grad.isfinite().all()
    exact = sum(charged(method, student.to(dtype).double(), teacher.to(dtype).double(), target).values())
    assert sum(charged(method, student.to(dtype), teacher.to(dtype), target).values()) == pytest.approx(
        exact.item(), rel=1e-4
    )
    with torch.autocast("cpu", dtype):
        cast = sum(charged(method, student.to(dtype), teacher.to(dtype), target).values())
    assert cast.item() == pytest.approx(exact.item(), rel=1e-4)


def test_per_pixel_equals_flattened_and_unlabelled_pixels_are_left_out():
    student, teacher, _ = drawn((2, 5, 3, 4), 0)
    target = torch.randint(-1, 5, (2, 3, 4), generator=torch.Generator().manual_seed(1))
    flat = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (student, teacher)]
    whole, rows = charged(ready(5), student, teacher, target), charged(ready(5), *flat, target.flatten())
    assert all(torch.isclose(whole[name], rows[name], rtol=1e-12) for name in whole)
    known = target.flatten() >= 0
    method = ready(5)
    cost = method._cost(flat[1])
    expected = wkd_logits_loss(*(x[known] for x in flat), target.flatten()[known], cost, gamma=600.0, temperature=8.0)
    assert all(torch.isclose(a, b, rtol=1e-12) for a, b in zip(whole.values(), expected, strict=True))


@pytest.mark.parametrize("images", [0, 1])
def test_few_images_and_few_classes(images):
    student = torch.randn(images, 4, requires_grad=True)
    method = ready(4).float()
    terms = charged(method, student, torch.randn(images, 4), torch.zeros(images, dtype=torch.long))
    sum(terms.values()).backward()
    assert all(value.isfinite() for value in terms.values()) and student.grad.isfinite().all()
    assert method.covariance.isfinite().all() and (images or not any(terms.values()))
    assert list(charged(ready(2), *drawn((3, 2), 0))) == ["target"]


def test_another_number_of_classes_and_no_setup_take_equal_prices():
    student, teacher, target = drawn((4, 6), 0)
    expected = charged(WKDLogits().double(), student, teacher, target)
    found = charged(ready(3), student, teacher, target)
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_standardised_ignores_scale_and_shift():
    student, teacher, target = drawn((6, 5), 0)
    a, b = (
        charged(ready(5, standardised=True), s, t, target)
        for s, t in ((student, teacher), (7 * student + 3, teacher / 5 - 2))
    )
    assert all(torch.isclose(a[name], b[name], rtol=1e-4) for name in a)


def test_bad_values_are_named():
    wrong = {"gamma": -1.0, "temperature": 0.0, "kappa": -2.0, "reg": 0.01, "iterations": 0}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
            WKDLogits(**{name: value})
    with pytest.raises(StillroomError, match="SR-M332"):
        charged(ready(4), torch.randn(3, 4), torch.randn(3, 4), torch.rand(3, 4))

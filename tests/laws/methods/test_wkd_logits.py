"""What is special to WKD-L: the prices of moving between classes, and what is remembered of them."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit.features import drawn
from kit.method_inputs import logit_terms

from stillroom.methods._transport import marginal_error, plan, scalings
from stillroom.methods.wkd_logits import WKDLogits, class_cost, wkd_logits_loss
from stillroom.types import Output

seeds = st.integers(0, 2**31)


def labelled(images, classes, seed=0, dtype=torch.float64):
    """Two networks' logits and a label for each image."""
    target = torch.randint(classes, (images,), generator=torch.Generator().manual_seed(seed))
    student, teacher = (3 * drawn(images, classes, seed=s, dtype=dtype) for s in (seed, seed + 1))
    return student, teacher, target


def wkd(classes, **arguments):
    method = WKDLogits(**arguments)
    method.setup(Output(pred=torch.zeros(2, classes)), Output(pred=torch.zeros(2, classes)))
    return method.double()


@given(seeds)
def test_wkd_is_nearly_zero_at_equality_and_blind_to_the_true_logit(seed):
    """What is left at equality is the smearing, which goes with reg."""
    student, teacher, target = labelled(4, 6, seed)
    cost = class_cost(torch.zeros(6, 6).double(), 0.0, 1.0)
    how = {"cost": cost, "gamma": 1.0, "temperature": 2.0, "iterations": 100}
    apart, same = (wkd_logits_loss(s, teacher, target, **how) for s in (student, teacher))
    assert same[1] <= 1e-4 and same[1] < apart[1]
    louder = student.scatter_add(1, target[:, None], torch.ones_like(student))
    assert torch.equal(wkd_logits_loss(louder, teacher, target, **how)[1], apart[1])


def test_confusing_near_classes_costs_less():
    """The student believes in class 1 or 3 where the teacher believes in 2, which is much like 1."""
    cost = class_cost(torch.tensor([[1, 0, 0, 0], [0, 1, 0.9, 0], [0, 0.9, 1, 0], [0, 0, 0, 1]]).double(), 1.0, 1.0)
    teacher = torch.tensor([[9.0, 0, 5, 0]]).double()
    near, far = (
        wkd_logits_loss(torch.tensor([s]).double(), teacher, torch.tensor([0]), cost, gamma=1.0, temperature=1.0)[1]
        for s in ([9.0, 5, 0, 0], [9.0, 0, 0, 5])
    )
    assert near < 0.3 * far


def test_prices_begin_equal_and_end_as_the_correlations_have_them():
    method = wkd(4)
    start = class_cost(method.covariance, 0.0, 1.0)
    assert torch.allclose(start, (1 - torch.exp(torch.tensor(-1.0))) * (1 - torch.eye(4)).double(), atol=1e-7)
    teacher = drawn(5000, 2) @ torch.tensor([[1.0, 0.9, 0, 0], [0, 0, 1.0, -1.0]]).double()
    cost = method._cost(teacher)
    assert cost[0, 1] < cost[0, 2] < 0.8 and cost[2, 3] > cost[0, 2] and not cost.diagonal().any()
    assert torch.equal(cost, cost.T) and cost.max() < 1 - 0.13  # d is at most 2: 1 - exp(-2)
    assert class_cost(torch.zeros(3, 3), 1.0, 1.0)[0, 1].item() == pytest.approx(0.632, abs=1e-3)


def test_prices_do_not_see_a_constant_on_an_image():
    teacher = 3 * drawn(20, 5)
    moved = teacher + 50 * drawn(20, 1, seed=1)
    assert torch.allclose(wkd(5)._cost(moved), wkd(5)._cost(teacher), atol=1e-9)


def test_only_training_counts_images():
    student, teacher, target = labelled(6, 4)
    method = wkd(4).eval()
    logit_terms(method, student, teacher, target)
    assert method.seen == 0 and not method.covariance.any()
    logit_terms(method.train(), student, teacher, target)
    assert method.seen == 6 and method.covariance.any()


def test_the_same_after_a_resume():
    """What was counted is in the state: the second half of a run goes on as if nothing had happened."""
    first, second = labelled(6, 5), labelled(6, 5, seed=10)
    one = wkd(5)
    logit_terms(one, *first)
    two = wkd(5)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    ends = [logit_terms(method, *second) for method in (one, two, wkd(5))]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert not torch.equal(ends[0]["transport"], ends[2]["transport"])


@pytest.mark.parametrize("classes", [6, 10, 100])
@pytest.mark.parametrize(("spread", "temperature"), [(3, 8), (8, 8), (3, 2), (8, 2), (20, 2)])
def test_the_iterations_suffice(classes, spread, temperature):
    """What the plan misses stays below 0.01 at the defaults, for the authors' two temperatures."""
    method, worst = wkd(classes), 0.0
    for seed in range(3):
        student, teacher, target = labelled(32, classes, seed)
        cost = method._cost(teacher)
        true = torch.arange(classes) == target[:, None]
        logs = [(z / 3 * spread / temperature).masked_fill(true, -torch.inf).log_softmax(1) for z in (student, teacher)]
        found = plan(*scalings(*logs, cost, reg=method.reg, iterations=method.iterations), cost, reg=method.reg)
        worst = max(worst, marginal_error(found, *logs).max().item())
    assert worst <= 1e-2


def test_two_classes_have_one_part_and_other_numbers_of_classes_equal_prices():
    assert list(logit_terms(wkd(2), *labelled(3, 2))) == ["target"]
    expected = logit_terms(WKDLogits().double(), *labelled(4, 6))
    found = logit_terms(wkd(3), *labelled(4, 6))
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_unlabelled_pixels_move_prices_and_are_not_charged():
    student, teacher = (drawn(2, 5, 3, 4, seed=seed) for seed in (0, 1))
    target = torch.randint(-1, 5, (2, 3, 4), generator=torch.Generator().manual_seed(1))
    rows = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (student, teacher)]
    known = target.flatten() >= 0
    cost = wkd(5)._cost(rows[1])
    expected = wkd_logits_loss(*(x[known] for x in rows), target.flatten()[known], cost, gamma=600.0, temperature=8.0)
    found = logit_terms(wkd(5), student, teacher, target)
    assert all(torch.isclose(a, b, rtol=1e-12) for a, b in zip(found.values(), expected, strict=True))


@pytest.mark.parametrize("images", [0, 1])
def test_few_images_leave_finite_prices(images):
    method = wkd(4)
    terms = logit_terms(method, *labelled(images, 4))
    assert method.covariance.isfinite().all() and all(value.isfinite() for value in terms.values())

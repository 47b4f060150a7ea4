"""What must hold of the sliced Wasserstein distance, whatever the numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.methods import sliced_wasserstein
from stillroom.methods.sliced_wasserstein import SlicedWasserstein, draw, sliced_wasserstein_loss
from stillroom.types import Batch, Output

seeds = st.integers(0, 2**31)
laws = settings(deadline=None, max_examples=50)


def made(seed, points=6, width=4, number=30, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(points, width, generator=generator, dtype=dtype) for _ in range(2))
    torch.manual_seed(seed)
    return student, teacher, draw(number, teacher)


def test_a_shift_in_one_of_eight_dimensions():
    """techniques.md 4: a shift of 0.5 in one of 8 dimensions costs 0.25 / 8 = 0.03125 +- 15 % with 500 directions."""
    torch.manual_seed(0)
    teacher = torch.randn(64, 8, dtype=torch.float64)
    student = teacher + 0.5 * torch.eye(8, dtype=torch.float64)[0]
    assert sliced_wasserstein_loss(student, teacher, draw(500, teacher)).item() == pytest.approx(0.03125, rel=0.15)


@laws
@given(seeds)
def test_zero_for_the_same_set_in_any_order_and_never_below(seed):
    student, teacher, directions = made(seed)
    assert sliced_wasserstein_loss(student[torch.randperm(6)], student, directions) == pytest.approx(0, abs=1e-20)
    assert sliced_wasserstein_loss(student, teacher, directions) > 0


@laws
@given(seeds)
def test_symmetric_and_blind_to_a_shift_of_both(seed):
    student, teacher, directions = made(seed)
    found = sliced_wasserstein_loss(student, teacher, directions)
    assert torch.isclose(sliced_wasserstein_loss(teacher, student, directions), found, rtol=1e-12)
    assert torch.isclose(sliced_wasserstein_loss(student + 3, teacher + 3, directions), found, rtol=1e-9)


@laws
@given(seeds, st.floats(0.1, 10))
def test_grows_with_the_square_of_the_scale(seed, scale):
    student, teacher, directions = made(seed)
    found = sliced_wasserstein_loss(student * scale, teacher * scale, directions)
    assert torch.isclose(found, sliced_wasserstein_loss(student, teacher, directions) * scale**2, rtol=1e-9)


@laws
@given(seeds, st.integers(1, 20))
def test_directions_have_length_one(seed, width):
    torch.manual_seed(seed)
    assert torch.allclose(draw(7, torch.zeros(1, width, dtype=torch.float64)).norm(dim=1), torch.ones(7).double())


def test_directions_favour_no_axis():
    """The mean of u u^T is I / D on the sphere; 20000 draws are within four standard errors of an entry."""
    torch.manual_seed(0)
    directions = draw(20_000, torch.zeros(1, 4, dtype=torch.float64))
    assert torch.allclose(directions.T @ directions / 20_000, torch.eye(4).double() / 4, atol=4 * 0.25 / 20_000**0.5)


@settings(deadline=None, max_examples=5)
@given(seeds)
def test_gradcheck(seed):
    student, teacher, directions = made(seed, 4, 3, 5)
    assert torch.autograd.gradcheck(lambda x: sliced_wasserstein_loss(x, teacher, directions), student.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype):
    student, teacher, directions = made(0, 32, 16, 100, torch.float32)
    assert sliced_wasserstein_loss(student.to(dtype) * 1e4, teacher.to(dtype) * 1e4, directions).isfinite()
    expected = sliced_wasserstein_loss(student, teacher, directions).item()
    assert sliced_wasserstein_loss(student.to(dtype), teacher.to(dtype), directions) == pytest.approx(
        expected, rel=0.02
    )


def test_autocast_does_not_round_the_products():
    student, teacher, directions = made(0, 32, 16, 100, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = sliced_wasserstein_loss(student, teacher, directions)
    assert inside == sliced_wasserstein_loss(student, teacher, directions)


def test_one_image_and_no_image():
    one, other, directions = made(1, 1)
    expected = ((one - other) @ directions.T).square().mean()
    assert torch.isclose(sliced_wasserstein_loss(one, other, directions), expected)
    none = torch.randn(0, 4, requires_grad=True)
    loss = sliced_wasserstein_loss(none, torch.randn(0, 4), directions.float())
    loss.backward()
    assert loss == 0 and none.grad.shape == (0, 4)


def ready():
    torch.manual_seed(0)
    method = SlicedWasserstein(student_taps=("a",), teacher_taps=("b",))
    student = Output(pred=torch.zeros(4, 5), taps={"a": torch.randn(4, 3, 2, 2)})
    teacher = Output(pred=torch.zeros(4, 5), taps={"b": torch.randn(4, 6)})
    method.setup(student, teacher)
    return method, student, teacher, Batch(images=torch.zeros(4, 1, 2, 2), target=torch.zeros(4), keys=torch.arange(4))


def test_every_parameter_learns_and_directions_follow_the_seed():
    method, student, teacher, batch = ready()
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(method.loss(student, teacher, batch, 0.0)["transport"])
    assert found[0] == found[1] != found[2]
    found[0].backward()
    assert all(p.grad.abs().sum() > 0 for p in method.parameters()) and len(list(method.parameters())) == 2


def test_all_processes_points_are_one_set(monkeypatch):
    """The rows of both networks go through `together`, and the directions are the first process's in all."""
    method, student, teacher, batch = ready()
    torch.manual_seed(1)
    alone = method.loss(student, teacher, batch, 0.0)["transport"]
    monkeypatch.setattr(sliced_wasserstein, "together", lambda x: torch.cat([x, x + len(x)]))
    torch.manual_seed(1)
    directions = draw(100, teacher.taps["b"])
    ours = method.regress[0](student.taps["a"].mean((2, 3)))
    theirs = teacher.taps["b"]
    expected = sliced_wasserstein_loss(torch.cat([ours, ours + 4]), torch.cat([theirs, theirs + 4]), directions)
    torch.manual_seed(1)
    assert method.loss(student, teacher, batch, 0.0)["transport"] == expected != alone


def test_refuses_bad_arguments():
    with pytest.raises(ValueError, match="directions must be at least 1, got 0"):
        SlicedWasserstein(directions=0)

"""Properties of the divergences, whatever the numbers (techniques.md 2)."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.methods.divergence import Divergence, Kind, divergence_loss
from stillroom.methods.hinton import Hinton, hinton_loss
from stillroom.types import Batch, Output

KINDS = get_args(Kind)
kinds = st.sampled_from(KINDS)
temperatures = st.floats(0.5, 20)
betas = st.floats(0.01, 0.99)
shapes = st.tuples(st.integers(1, 6), st.integers(2, 9))
seeds = st.integers(0, 2**31)


def several(count, shape, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) * 3 for _ in range(count)]


def charged(method, student, teacher, progress=0.5):
    batch = Batch(images=torch.zeros(len(student), 1, 2, 2), target=None, keys=torch.arange(len(student)))
    (term,) = method.loss(Output(pred=student), Output(pred=teacher), batch, progress).values()
    return term


def entropy_of(beta):
    return -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)


def most(kind, beta):
    return {"js": math.log(2), "gjs": entropy_of(beta), "tv": 1.0, "hellinger": 1.0}.get(kind, math.inf)


def sure(*classes, of=4):
    """Logits of a network that is sure of these classes, one an image."""
    return 1e4 * torch.nn.functional.one_hot(torch.tensor(classes), of).double()


@given(kinds, shapes, seeds, temperatures, betas)
def test_zero_at_equality_and_never_below_and_bounded(kind, shape, seed, temperature, beta):
    student, teacher = several(2, shape, seed)
    order = 1 if kind == "tv" else 2
    assert abs(divergence_loss(student, student, kind, temperature, beta)) <= 1e-12 * temperature**2
    found = divergence_loss(student, teacher, kind, temperature, beta)
    assert -1e-12 * temperature**2 <= found <= most(kind, beta) * temperature**order * (1 + 1e-12)


@given(kinds, seeds, betas)
@settings(max_examples=30)
def test_above_zero_where_the_two_differ(kind, seed, beta):
    student, teacher = several(2, (3, 5), seed)
    assert divergence_loss(student, teacher, kind, 1.0, beta) > 1e-4


def test_nothing_in_common_costs_most():
    """techniques.md 2: disjoint one-hots give JS = ln 2 = 0.693147, to 1e-6; TV and Hellinger 1."""
    student, teacher = sure(0, 1, 3), sure(1, 2, 0)
    assert divergence_loss(student, teacher, "js", 1.0) == pytest.approx(0.693147, abs=1e-6)
    assert divergence_loss(student, teacher, "js", 1.0) == pytest.approx(math.log(2), abs=1e-12)
    assert divergence_loss(student, teacher, "tv", 1.0) == pytest.approx(1, abs=1e-12)
    assert divergence_loss(student, teacher, "hellinger", 1.0) == pytest.approx(1, abs=1e-12)
    assert divergence_loss(student, teacher, "gjs", 1.0, 0.2) == pytest.approx(entropy_of(0.2), abs=1e-12)


@given(st.sampled_from(["js", "tv", "hellinger"]), shapes, seeds, temperatures)
def test_symmetric(kind, shape, seed, temperature):
    """techniques.md 2: JS is symmetric, to 1e-7."""
    student, teacher = several(2, shape, seed)
    there, back = (divergence_loss(a, b, kind, temperature) for a, b in ((student, teacher), (teacher, student)))
    assert torch.isclose(there, back, rtol=1e-7, atol=1e-7)


@given(shapes, seeds, temperatures, betas)
def test_reversed_by_swapping(shape, seed, temperature, beta):
    student, teacher = several(2, shape, seed)
    assert divergence_loss(student, teacher, "rkl", temperature) == divergence_loss(teacher, student, "kl", temperature)
    mixed = divergence_loss(student, teacher, "gjs", temperature, beta)
    assert torch.isclose(mixed, divergence_loss(teacher, student, "gjs", temperature, 1 - beta), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("kind", "power"), [("js", 0.5), ("hellinger", 0.5), ("tv", 1.0)])
def test_triangle_inequality(kind, power):
    """techniques.md 2: the root of JS is a distance, on 1,000 random triples; so are Hellinger's root and TV."""
    a, b, c = several(3, (1000, 6), 0)

    def distances(x, y):
        return torch.stack([divergence_loss(x[i : i + 1], y[i : i + 1], kind, 1.0) for i in range(1000)]) ** power

    assert (distances(a, c) <= distances(a, b) + distances(b, c) + 1e-12).all()


@given(shapes, seeds)
@settings(max_examples=30)
def test_slopes_at_both_ends_of_beta_are_kl_and_rkl(shape, seed):
    """techniques.md 2: within 1 % at beta = 1e-3 of either end, for probabilities that differ by no more than e^2."""
    student, teacher = (x.tanh() / 2 for x in several(2, shape, seed))
    near_0 = divergence_loss(student, teacher, "gjs", 1.0, 1e-3) / 1e-3
    near_1 = divergence_loss(student, teacher, "gjs", 1.0, 1 - 1e-3) / 1e-3
    assert near_0 == pytest.approx(divergence_loss(student, teacher, "kl", 1.0).item(), rel=1e-2)
    assert near_1 == pytest.approx(divergence_loss(student, teacher, "rkl", 1.0).item(), rel=1e-2)


@pytest.mark.parametrize(
    ("kind", "beta", "c"),
    [("kl", 0.5, 1), ("rkl", 0.5, 1), ("js", 0.5, 1 / 4), ("hellinger", 0.5, 1 / 4), ("gjs", 0.2, 0.16)],
)
def test_large_temperature_gives_the_squared_difference(kind, beta, c):
    """T^2 keeps the smooth kinds at c |z_s - z_t|^2 / (2 K) of centred logits, and their gradients at its slope."""
    student, teacher = several(2, (1, 7), 1)
    apart = (student - student.mean()) - (teacher - teacher.mean())
    student.requires_grad_()
    found = divergence_loss(student, teacher, kind, 1e4, beta)
    (grad,) = torch.autograd.grad(found, student)
    assert found.item() == pytest.approx(c * apart.square().sum().item() / 14, rel=2e-3)
    assert torch.allclose(grad, c * apart / 7, rtol=2e-2, atol=1e-3)


def test_large_temperature_gives_tv_the_absolute_difference():
    """T keeps tv at |z_s - z_t|_1 / (2 K) of centred logits."""
    student, teacher = several(2, (1, 7), 1)
    apart = (student - student.mean()) - (teacher - teacher.mean())
    for temperature in (1e4, 1e5):
        found = divergence_loss(student, teacher, "tv", temperature)
        assert found.item() == pytest.approx(apart.abs().sum().item() / 14, rel=2e-3)


@given(shapes, seeds, temperatures, st.booleans())
def test_kind_kl_is_hinton(shape, seed, temperature, standardised):
    student, teacher = several(2, shape, seed)
    assert torch.isclose(
        divergence_loss(student, teacher, "kl", temperature),
        hinton_loss(student, teacher, temperature),
        rtol=1e-9,
        atol=1e-12,
    )
    arguments = {"temperature": temperature, "standardised": standardised}
    ours = charged(Divergence(kind="kl", **arguments), student, teacher)
    assert torch.isclose(ours, charged(Hinton(**arguments), student, teacher), rtol=1e-9, atol=1e-12)
    assert Divergence.weight == Hinton.weight and Divergence().temperature == Hinton().temperature


@given(kinds, shapes, seeds, temperatures, st.floats(-50, 50))
def test_adding_a_constant_to_an_image_changes_nothing(kind, shape, seed, temperature, constant):
    student, teacher = several(2, shape, seed)
    moved = divergence_loss(student + constant, teacher - constant, kind, temperature)
    assert torch.isclose(moved, divergence_loss(student, teacher, kind, temperature), rtol=1e-9, atol=1e-9)


@given(kinds, seeds, temperatures)
@settings(max_examples=30)
def test_per_pixel_is_the_mean_over_pixels(kind, seed, temperature):
    student, teacher = several(2, (2, 5, 3, 4), seed)
    flat = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (student, teacher)]
    expected = divergence_loss(*flat, kind, temperature)
    assert torch.isclose(divergence_loss(student, teacher, kind, temperature), expected, rtol=1e-9)


@given(kinds, shapes, seeds)
@settings(max_examples=30)
def test_a_temperature_a_row_is_the_mean_of_rows(kind, shape, seed):
    student, teacher = several(2, shape, seed)
    heat = 0.5 + 10 * torch.rand(shape[0], 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    rows = [divergence_loss(student[m : m + 1], teacher[m : m + 1], kind, heat[m].item(), 0.3) for m in range(shape[0])]
    found = divergence_loss(student, teacher, kind, heat, 0.3)
    assert torch.isclose(found, torch.stack(rows).mean(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heat", [3.0, torch.tensor([[1.0], [4.0], [9.0]], dtype=torch.float64)])
def test_gradcheck(kind, heat):
    student, teacher = several(2, (3, 4), 0)
    loss = lambda z: divergence_loss(z, teacher, kind, heat, 0.3)  # noqa: E731
    assert torch.autograd.gradcheck(loss, student.requires_grad_())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(kind, dtype):
    student, teacher = several(2, (4, 10), 0, torch.float32)
    method = Divergence(kind=kind, beta=0.3)
    far = (student * 1000).to(dtype).requires_grad_()
    loss = charged(method, far, (teacher * 1000).to(dtype))
    loss.backward()
    assert loss.isfinite() and far.grad.isfinite().all()
    near = charged(method, student.to(dtype), teacher.to(dtype))
    assert near == pytest.approx(charged(method, student, teacher).item(), rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_one_image_and_no_image_and_agreement(kind):
    one = torch.randn(1, 3, requires_grad=True)
    assert charged(Divergence(kind=kind), one, torch.randn(1, 3)).isfinite()
    none = torch.randn(0, 3, requires_grad=True)
    loss = charged(Divergence(kind=kind), none, torch.randn(0, 3))
    loss.backward()
    assert loss == 0 and none.grad.shape == (0, 3)
    same = torch.randn(2, 3, requires_grad=True)
    charged(Divergence(kind=kind), same, same.detach()).backward()
    assert torch.allclose(same.grad, torch.zeros(2, 3), atol=1e-6)


def test_the_term_is_named_after_the_kind():
    student, teacher = several(2, (2, 3), 0)
    for kind in KINDS:
        batch = Batch(images=torch.zeros(2, 1, 2, 2), target=None, keys=torch.arange(2))
        assert list(Divergence(kind=kind).loss(Output(pred=student), Output(pred=teacher), batch, 0.0)) == [kind]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kind": "kldiv"}, "kind must be one of kl, rkl, js, gjs, tv, hellinger, got kldiv"),
        ({"beta": 0.0}, "beta must be above 0 and below 1, got 0.0"),
        ({"beta": 1.0}, "beta must be above 0 and below 1, got 1.0"),
        ({"temperature": -1.0}, "temperature must be above 0 and finite, got -1.0"),
    ],
)
def test_bad_arguments_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        Divergence(**arguments)

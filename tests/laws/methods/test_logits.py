"""What is special to the losses of plain predictions: hinton, divergence, hard, deit."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from kit.declared.logits import most
from kit.features import drawn
from kit.method_inputs import logit_terms

from stillroom.methods._errors import NoTapFound
from stillroom.methods._logits import standardise
from stillroom.methods.deit import DeiT
from stillroom.methods.divergence import Divergence, Kind, divergence_loss
from stillroom.methods.hard import Hard, hard_loss
from stillroom.methods.hinton import Hinton, hinton_loss
from stillroom.types import Output

KINDS = get_args(Kind)
seeds = st.integers(0, 2**31)
temperatures = st.floats(0.5, 20)
HEATS = torch.tensor([[1.0], [4.0], [9.0]], dtype=torch.float64)


def two(*shape, seed=0):
    return 3 * drawn(*shape, seed=seed), 3 * drawn(*shape, seed=seed + 1)


def sure(*classes, of=4):
    """Logits of a network that is sure of these classes, one an image."""
    return 1e4 * F.one_hot(torch.tensor(classes), of).double()


def test_the_authors_temperature_and_weights():
    assert (Hinton().temperature, Hinton.weight) == (4.0, 0.9) == (Divergence().temperature, Divergence.weight)
    assert Hard.weight == 0.5


@given(seeds, temperatures)
def test_hinton_s_gradient_is_the_formula_s(seed, temperature):
    """d/dz_s of T^2 KL = T (softmax(z_s / T) - softmax(z_t / T)) / B."""
    student, teacher = two(3, 5, seed=seed)
    (grad,) = torch.autograd.grad(hinton_loss(student.requires_grad_(), teacher, temperature), student)
    expected = temperature * ((student / temperature).softmax(1) - (teacher / temperature).softmax(1)) / 3
    assert torch.allclose(grad, expected, rtol=1e-9, atol=1e-12)


def test_hinton_s_gradient_tends_to_the_centred_difference():
    """Hinton et al. 2015, eq. 4: (z_s - z_t) / K of centred logits; how far from it at three temperatures."""
    teacher, student = torch.tensor([[3.7, 1.3, 0.0]]), torch.tensor([[1.0, 2.0, 0.5]], requires_grad=True)
    wanted = ((student - student.mean()) - (teacher - teacher.mean())).detach() / 3
    found = []
    for temperature in (1.0, 10.0, 100.0):
        (grad,) = torch.autograd.grad(hinton_loss(student, teacher, temperature), student)
        found.append((grad - wanted).abs().max().item())
    assert found[:2] == [pytest.approx(0.215, abs=5e-3), pytest.approx(0.041, abs=5e-3)] and found[2] <= 0.005


@pytest.mark.parametrize("kind", [*KINDS, "hinton"])
def test_gradient_with_a_temperature_a_row(kind):
    student, teacher = two(3, 4)
    loss = hinton_loss if kind == "hinton" else lambda s, t, heat: divergence_loss(s, t, kind, heat, 0.3)
    assert torch.autograd.gradcheck(lambda z: loss(z, teacher, HEATS), student.requires_grad_())


def test_standardised_logits():
    """Sun et al. 2024: a line through the teacher's logits costs nothing, and a row of equal ones is zeros."""
    _, teacher = two(4, 8)
    method = Hinton(temperature=2.0, standardised=True)
    assert logit_terms(method, 3 * teacher - 1, teacher)["kl"].item() == pytest.approx(0, abs=1e-10)
    assert torch.equal(standardise(torch.full((2, 5), 3.0)), torch.zeros(2, 5))
    assert standardise(teacher).mean(1).abs().max() < 1e-12 and (standardise(teacher).std(1) - 1).abs().max() < 1e-6


@given(seeds)
def test_hard_costs_least_at_equality_and_nothing_where_the_student_is_sure(seed):
    """-log max softmax(student) is the least that any labels could cost."""
    student, teacher = two(4, 6, seed=seed)
    least = -student.log_softmax(1).amax(1).mean()
    assert hard_loss(student, teacher) >= least - 1e-12
    assert torch.isclose(hard_loss(student, student), least, rtol=1e-12)
    chosen = F.one_hot(teacher.argmax(1), 6)
    assert hard_loss(1e3 * chosen.double(), teacher) == pytest.approx(0, abs=1e-12)
    (grad,) = torch.autograd.grad(hard_loss(student.requires_grad_(), teacher), student)
    assert torch.allclose(grad, (student.softmax(1) - chosen) / 4, rtol=1e-9, atol=1e-12)


def test_deit_keeps_its_tap_and_names_the_setting_that_makes_one():
    method = DeiT()
    method.connect(("norm",), ("norm",))
    method.connect((), ())
    assert method.student_taps == ("head_dist",) and method.teacher_taps == ()
    pred = torch.zeros(2, 5)
    for taps in ({}, {"head_dist": torch.zeros(2, 4)}):
        with pytest.raises(NoTapFound, match=r"student\.distilled = true"):
            method.setup(Output(pred=pred, taps=taps), Output(pred=pred))
    method.setup(Output(pred=pred, taps={"head_dist": pred}), Output(pred=pred))


@pytest.mark.parametrize("kind", ["js", "tv", "hellinger", "gjs"])
def test_distributions_with_nothing_in_common_cost_most(kind):
    """ln 2 for JS, 1 for TV and Hellinger, beta's entropy for GJS."""
    found = divergence_loss(sure(0, 1, 3), sure(1, 2, 0), kind, 1.0, 0.2)
    assert found.item() == pytest.approx(most(kind, 0.2), abs=1e-12)


@pytest.mark.parametrize("kind", ["js", "tv", "hellinger"])
@given(seeds, temperatures)
def test_symmetric(kind, seed, temperature):
    student, teacher = two(3, 5, seed=seed)
    there, back = (divergence_loss(a, b, kind, temperature) for a, b in ((student, teacher), (teacher, student)))
    assert torch.isclose(there, back, rtol=1e-7, atol=1e-7)


@given(seeds, temperatures, st.floats(0.01, 0.99))
def test_reversed_by_swapping(seed, temperature, beta):
    student, teacher = two(3, 5, seed=seed)
    assert divergence_loss(student, teacher, "rkl", temperature) == divergence_loss(teacher, student, "kl", temperature)
    mixed = divergence_loss(student, teacher, "gjs", temperature, beta)
    assert torch.isclose(mixed, divergence_loss(teacher, student, "gjs", temperature, 1 - beta), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("kind", "power"), [("js", 0.5), ("hellinger", 0.5), ("tv", 1.0)])
def test_triangle_inequality(kind, power):
    """The root of JS is a distance, so is Hellinger's root, and TV, on random triples."""
    a, b, c = (3 * drawn(300, 6, seed=seed) for seed in range(3))

    def distances(x, y):
        rows = [divergence_loss(s, t, kind, 1.0) for s, t in zip(x.split(1), y.split(1), strict=True)]
        return torch.stack(rows) ** power

    assert (distances(a, c) <= distances(a, b) + distances(b, c) + 1e-12).all()


@given(seeds)
def test_slopes_at_both_ends_of_beta_are_kl_and_rkl(seed):
    """Within 1 % at beta = 1e-3 of either end, for probabilities that differ by no more than e^2."""
    student, teacher = (x.tanh() / 2 for x in two(3, 5, seed=seed))
    for beta, kind in ((1e-3, "kl"), (1 - 1e-3, "rkl")):
        near = divergence_loss(student, teacher, "gjs", 1.0, beta).item() / 1e-3
        assert near == pytest.approx(divergence_loss(student, teacher, kind, 1.0).item(), rel=1e-2)


@pytest.mark.parametrize(
    ("kind", "beta", "c"),
    [("kl", 0.5, 1), ("rkl", 0.5, 1), ("js", 0.5, 1 / 4), ("hellinger", 0.5, 1 / 4), ("gjs", 0.2, 0.16)],
)
def test_large_temperature_gives_the_squared_difference(kind, beta, c):
    """T^2 keeps the smooth kinds at c |z_s - z_t|^2 / (2 K) of centred logits, and their gradients at its slope."""
    student, teacher = two(1, 7)
    apart = (student - student.mean()) - (teacher - teacher.mean())
    found = divergence_loss(student.requires_grad_(), teacher, kind, 1e4, beta)
    (grad,) = torch.autograd.grad(found, student)
    assert found.item() == pytest.approx(c * apart.square().sum().item() / 14, rel=2e-3)
    assert torch.allclose(grad, c * apart / 7, rtol=2e-2, atol=1e-3)


def test_large_temperature_gives_tv_the_absolute_difference():
    """T keeps tv at |z_s - z_t|_1 / (2 K) of centred logits."""
    student, teacher = two(1, 7)
    apart = (student - student.mean()) - (teacher - teacher.mean())
    for temperature in (1e4, 1e5):
        found = divergence_loss(student, teacher, "tv", temperature).item()
        assert found == pytest.approx(apart.abs().sum().item() / 14, rel=2e-3)


@given(seeds, temperatures, st.booleans())
def test_kind_kl_is_hinton(seed, temperature, standardised):
    student, teacher = two(3, 5, seed=seed)
    arguments = {"temperature": temperature, "standardised": standardised}
    methods = Divergence(kind="kl", **arguments), Hinton(**arguments)
    ours, theirs = (logit_terms(method, student, teacher)["kl"] for method in methods)
    assert torch.isclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_at_agreement_nothing_is_left_to_learn_and_the_term_has_the_kind_s_name(kind):
    same = torch.randn(2, 3, requires_grad=True)
    terms = logit_terms(Divergence(kind=kind), same, same.detach())
    terms[kind].backward()
    assert list(terms) == [kind] and torch.allclose(same.grad, torch.zeros(2, 3), atol=1e-6)

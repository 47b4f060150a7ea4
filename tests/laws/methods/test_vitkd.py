"""What must hold of ViTKD, whatever the numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stillroom.errors import StillroomError
from stillroom.methods.vitkd import ViTKD, masked_places, vitkd_loss
from stillroom.types import Batch, Output

laws = settings(deadline=None, max_examples=50)
shares = st.integers(1, 100).map(lambda percent: Fraction(percent, 100))


@laws
@given(st.integers(1, 4), st.integers(1, 14), st.integers(1, 14), shares, st.integers(0, 2**31))
@example(1, 2, 5, Fraction(9, 10), 0)  # in floating point 10 * (1 - 0.9) is less than 1
def test_exactly_as_many_places_are_masked(images, height, width, share, seed):
    """techniques.md 20: N - floor(N (1 - share)) of each image's tokens, exactly."""
    torch.manual_seed(seed)
    places = height * width
    found = masked_places(images, height, width, float(share))
    assert found.shape == (images, height, width) and found.dtype == torch.bool
    assert found.flatten(1).sum(1).tolist() == [places - math.floor(places * (1 - share))] * images


def test_every_place_is_masked_equally_often_and_images_differ():
    torch.manual_seed(0)
    found = masked_places(4000, 3, 3, 0.5)  # five of nine: four standard errors are 0.031
    assert (found.double().mean(0) - 5 / 9).abs().max() < 4 * (5 / 9 * 4 / 9 / 4000) ** 0.5
    assert len({tuple(row) for row in found.flatten(1).tolist()}) == math.comb(9, 5)


def ready(student_width=4, teacher_width=6, images=3, side=4, prefix=1, **arguments):
    torch.manual_seed(0)
    method = ViTKD(**arguments)
    method.bind_taps(("a", "b", "c"), ("a", "b", "c"))
    student, teacher = (
        Output(
            pred=torch.zeros(images, 5),
            taps={name: torch.randn(images, side**2 + prefix, width, requires_grad=grad) for name in "abc"},
        )
        for width, grad in ((student_width, True), (teacher_width, False))
    )
    method.setup(student, teacher)
    batch = Batch(images=torch.zeros(images, 1, 2, 2), target=torch.zeros(images), keys=torch.arange(images))
    return method, student, teacher, batch


def test_tokens_keep_their_order():
    """techniques.md 20: shown tokens reach the generator where they stood, the mask token stands at the others."""
    method, student, teacher, batch = ready(6, 6)
    with torch.no_grad():
        method.token.copy_(torch.arange(6.0) + 100)
    seen = []
    method.generate[0].register_forward_hook(lambda module, given, said: seen.append(given[0]))
    torch.manual_seed(3)
    method.loss(student, teacher, batch, 0.0)
    torch.manual_seed(3)
    hidden = masked_places(3, 4, 4, 0.5).flatten(1)
    shown = seen[0].flatten(2).transpose(1, 2)
    assert torch.equal(shown[~hidden], student.taps["c"][:, 1:][~hidden])
    assert (shown[hidden] == torch.arange(6.0) + 100).all()


def test_only_masked_places_are_charged():
    method, student, teacher, batch = ready(6, 6)
    torch.manual_seed(3)
    hidden = masked_places(3, 4, 4, 0.5).flatten(1)
    losses = []
    for extra in (0.0, 5.0):
        moved = teacher.taps["c"].clone()
        moved[:, 1:][~hidden] += extra
        torch.manual_seed(3)
        told = Output(pred=teacher.pred, taps=teacher.taps | {"c": moved})
        losses.append(method.loss(student, told, batch, 0.0)["generate"])
    assert losses[0] == losses[1]


def test_mimic_is_zero_for_equal_networks_and_alpha_and_beta_are_in_the_terms():
    method, student, teacher, batch = ready(6, 6)
    same = Output(pred=student.pred, taps={name: tap.detach() for name, tap in student.taps.items()})
    assert method.loss(student, same, batch, 0.0)["mimic"] == 0
    small = []
    for arguments in ({}, {"alpha": 6e-5, "beta": 9e-6}):
        other, *_ = ready(6, 6, **arguments)
        torch.manual_seed(1)
        small.append(other.loss(student, teacher, batch, 0.0))
    assert small[1]["mimic"].item() == pytest.approx(2 * small[0]["mimic"].item(), rel=1e-5)
    assert small[1]["generate"].item() == pytest.approx(3 * small[0]["generate"].item(), rel=1e-5)


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("widths", [(4, 6), (6, 6)])
def test_every_parameter_learns(images, widths):
    method, student, teacher, batch = ready(*widths, images)
    sum(method.loss(method.project(student), teacher, batch, 0.0).values()).backward()
    assert all(p.grad.abs().sum() > 0 for p in method.parameters())
    assert all(tap.grad.abs().sum() > 0 and (tap.grad[:, 0] == 0).all() for tap in student.taps.values())
    assert sum(p.numel() for p in method.align.parameters()) == (0 if widths == (6, 6) else 3 * (4 * 6 + 6))


def test_another_grid_is_brought_to_the_teacher_s():
    """A student whose every 2x2 block of tokens averages to the teacher's token mimics it perfectly."""
    method, student, _, batch = ready(6, 6)
    maps = {name: tap[:, 1:].detach().transpose(1, 2).unflatten(2, (4, 4)) for name, tap in student.taps.items()}
    pooled = {name: torch.nn.functional.avg_pool2d(x, 2).flatten(2).transpose(1, 2) for name, x in maps.items()}
    teacher = Output(pred=student.pred, taps=pooled)
    method.setup(student, teacher)
    assert method.loss(student, teacher, batch, 0.0)["mimic"].item() == pytest.approx(0, abs=1e-12)


def test_gradcheck_and_its_formula():
    torch.manual_seed(0)
    s, t = (torch.randn(2, 3, 2, 2, dtype=torch.float64) for _ in range(2))
    counts = torch.tensor([[[True, False], [False, True]], [[True, True], [False, False]]])
    assert torch.autograd.gradcheck(lambda x: vitkd_loss(x, t, counts), s.requires_grad_())
    (grad,) = torch.autograd.grad(vitkd_loss(s, t, counts), s)
    assert torch.allclose(grad, (s - t).detach() * counts[:, None])  # 2 (s - t) / B, B = 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype):
    torch.manual_seed(0)
    s, t = torch.randn(2, 8, 14, 14), torch.randn(2, 8, 14, 14)
    assert vitkd_loss(s.to(dtype) * 1000, t.to(dtype) * 1000).isfinite()
    assert vitkd_loss(s.to(dtype), t.to(dtype)) == pytest.approx(vitkd_loss(s, t).item(), rel=0.02)


def test_no_image():
    none = torch.randn(0, 3, 2, 2, requires_grad=True)
    loss = vitkd_loss(none, torch.randn(0, 3, 2, 2))
    loss.backward()
    assert loss == 0 and none.grad.shape == (0, 3, 2, 2)


@pytest.mark.parametrize(
    "bad", [{"alpha": -1.0}, {"beta": -1.0}, {"masked": 0.0}, {"masked": 1.5}, {"student_taps": ("a",)}]
)
def test_refuses_bad_arguments(bad):
    (name,) = bad
    with pytest.raises(ValueError, match=f"{name} must .* got"):
        ViTKD(**bad)


def test_refuses_vectors():
    method = ViTKD(student_taps=("a", "b"), teacher_taps=("c", "d"))
    tokens, vector = torch.randn(2, 9, 4), torch.randn(2, 4)
    student = Output(pred=vector, taps={"a": tokens, "b": vector})
    with pytest.raises(StillroomError, match="SR-M330"):
        method.setup(student, Output(pred=vector, taps={"c": tokens, "d": tokens}))

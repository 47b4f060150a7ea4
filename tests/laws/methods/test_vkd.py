"""What must hold of VkD: the projection keeps lengths and angles, whatever the optimiser does to it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.io.checkpoint import save_tensors
from stillroom.methods.vkd import Isometry, VkD, vkd_loss
from stillroom.types import Batch, Output

seeds = st.integers(0, 2**31)
WIDTHS = [(16, 48), (48, 48), (1, 5), (64, 256)]


def trained(inputs, outputs, optimizer=torch.optim.AdamW, steps=50, **arguments):
    """A projection after some steps of an optimiser with weight decay, towards a random linear map."""
    torch.manual_seed(0)
    project = Isometry(inputs, outputs)
    goal, optimizer = torch.randn(inputs, outputs), optimizer(project.parameters(), weight_decay=0.05, **arguments)
    first = project.linear.weight.detach().clone()
    for _ in range(steps):
        z = torch.randn(32, inputs)
        optimizer.zero_grad()
        vkd_loss(project(z), z @ goal).backward()
        optimizer.step()
    assert (project.linear.weight - first).norm() > 0.05 * first.norm()
    return project


@pytest.mark.parametrize(("inputs", "outputs"), WIDTHS)
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_columns_stay_orthonormal_over_fifty_steps(inputs, outputs, optimizer):
    """techniques.md 21: ||P^T P - I|| <= 1e-5 after 50 optimiser steps, and the Gram matrix of P z is z's to 1e-4."""
    project = trained(inputs, outputs, optimizer, lr=1e-2 if optimizer is torch.optim.AdamW else 1.0)
    p = project.linear.weight.detach()
    assert p.shape == (outputs, inputs)
    assert (p.T @ p - torch.eye(inputs)).norm() <= 1e-5
    z = torch.randn(20, inputs) / inputs**0.5
    turned = project(z).detach()
    assert torch.allclose(turned @ turned.T, z @ z.T, atol=1e-4)


def test_rows_are_orthonormal_where_the_student_is_wider():
    p = trained(48, 16, lr=1e-2).linear.weight.detach()
    assert (p @ p.T - torch.eye(16)).norm() <= 1e-5


def test_autocast_leaves_it_orthonormal():
    project, z = trained(16, 48, lr=1e-2), torch.randn(20, 16)
    with torch.autocast("cpu", torch.bfloat16):
        turned = project(z.bfloat16())
    assert turned.dtype == torch.float32
    assert torch.allclose(turned, project(z.bfloat16().float()))


def test_copies_and_files_hold_the_same_projection(tmp_path):
    from safetensors.torch import load_file

    project, z = trained(16, 48, lr=1e-2), torch.randn(20, 16)
    twin = copy.deepcopy(project)
    assert torch.equal(twin(z), project(z))
    fresh = Isometry(16, 48)
    assert not torch.allclose(fresh(z), project(z), atol=0.1)
    save_tensors(project.state_dict(), tmp_path / "method.safetensors")
    fresh.load_state_dict(load_file(tmp_path / "method.safetensors"))
    assert torch.allclose(fresh(z), project(z), atol=1e-6)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(torch.randn_like(p))
    assert not torch.allclose(twin(z), project(z), atol=0.1)


@settings(deadline=None, max_examples=25)
@given(seeds, st.floats(0.1, 10), st.floats(-5, 5))
def test_the_teacher_s_scale_and_shift_do_not_count(seed, scale, shift):
    torch.manual_seed(seed)
    student, teacher = torch.randn(4, 8, dtype=torch.float64), torch.randn(4, 8, dtype=torch.float64)
    found = vkd_loss(student, teacher * scale + shift)
    assert torch.isclose(found, vkd_loss(student, teacher), rtol=1e-2)


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_zero_at_the_normalised_teacher_and_never_below(seed):
    torch.manual_seed(seed)
    student, teacher = torch.randn(4, 8, dtype=torch.float64), torch.randn(4, 8, dtype=torch.float64)
    assert vkd_loss(F.layer_norm(teacher, (8,)), teacher) == 0
    assert vkd_loss(student, teacher) > 0


def test_gradcheck():
    torch.manual_seed(0)
    z, teacher = torch.randn(3, 2, dtype=torch.float64, requires_grad=True), torch.randn(3, 4, dtype=torch.float64)
    project = Isometry(2, 4).double()
    with torch.no_grad():
        next(project.parameters()).normal_()
    assert torch.autograd.gradcheck(lambda x: vkd_loss(project(x), teacher), z)
    original = next(project.parameters())
    assert torch.autograd.gradcheck(lambda _: vkd_loss(project(z.detach()), teacher), original)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype):
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 8), torch.randn(4, 8)
    assert vkd_loss(student.to(dtype) * 1e4, teacher.to(dtype) * 1e4).isfinite()
    assert vkd_loss(student.to(dtype), teacher.to(dtype)) == pytest.approx(vkd_loss(student, teacher).item(), rel=0.02)


def test_one_image_and_no_image():
    assert vkd_loss(torch.randn(1, 3), torch.randn(1, 3)).isfinite()
    none = torch.randn(0, 3, requires_grad=True)
    loss = vkd_loss(none, torch.randn(0, 3))
    loss.backward()
    assert loss == 0 and none.grad.shape == (0, 3)


def test_every_parameter_learns_and_a_seed_decides():
    student = Output(pred=torch.zeros(3, 5), taps={"a": torch.randn(3, 10, 4), "c": torch.randn(3, 9, 2, 2)})
    teacher = Output(pred=torch.zeros(3, 5), taps={"b": torch.randn(3, 6, 2, 2), "d": torch.randn(3, 4)})
    batch = Batch(images=torch.zeros(3, 1, 2, 2), target=torch.zeros(3), keys=torch.arange(3))
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        method = VkD(student_taps=("a", "c"), teacher_taps=("b", "d"))
        method.setup(student, teacher)
        found.append(method.loss(method.project(student), teacher, batch, 0.0)["features"])
    assert found[0] == found[1]
    found[1].backward()
    assert all(p.grad.abs().sum() > 0 for p in method.parameters()) and len(list(method.parameters())) == 2

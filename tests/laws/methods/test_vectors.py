"""What is special to the losses of pooled vectors: cosine, simreg, vkd, sliced_wasserstein."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from kit.batches import batch_of
from kit.features import charge, drawn, outputs, ready
from safetensors.torch import load_file
from sklearn.metrics.pairwise import cosine_similarity
from torch import nn

from stillroom.io.checkpoint import save_tensors
from stillroom.methods import sliced_wasserstein
from stillroom.methods.cosine import Cosine, cosine_loss
from stillroom.methods.simreg import SimReg, simreg_loss
from stillroom.methods.sliced_wasserstein import SlicedWasserstein, random_directions, sliced_wasserstein_loss
from stillroom.methods.vkd import Isometry, VkD, vkd_loss

seeds = st.integers(0, 2**31)
WIDTHS = [(16, 48), (48, 48), (1, 5), (64, 256)]


@given(seeds)
def test_cosine_and_regress_against_scikit_learn_and_loops(seed):
    s, t = drawn(5, 7, seed=seed), drawn(5, 7, seed=seed + 1)
    angle = 1 - cosine_similarity(s.numpy(), t.numpy()).diagonal().mean()
    assert cosine_loss(s, t).item() == pytest.approx(angle, rel=1e-6)
    assert simreg_loss(s, t).item() == pytest.approx(2 * angle, rel=1e-6)
    assert cosine_loss(s, -s).item() == pytest.approx(2)
    loops = sum((a - b) ** 2 for x, y in zip(s.tolist(), t.tolist(), strict=True) for a, b in zip(x, y, strict=True))
    assert simreg_loss(s, t, unit=False).item() == pytest.approx(loops / 35, rel=1e-9)


def test_a_vector_of_zeros_is_at_a_right_angle_to_all():
    assert cosine_loss(torch.zeros(2, 3), torch.randn(2, 3)) == 1


def test_a_projector_stands_only_where_it_must():
    s, t = [drawn(4, 6)], [drawn(4, 6, seed=1)]
    assert not list(ready(Cosine(), s, t).parameters())
    assert charge(ready(Cosine(), s, t), s, t).item() == pytest.approx(cosine_loss(s[0], t[0]).item())
    wider = [drawn(4, 9, seed=1)]
    method = ready(Cosine(), s, wider)
    assert isinstance(method.align[0], nn.Linear)
    expected = cosine_loss(s[0] @ method.align[0].weight.T + method.align[0].bias, wider[0]).item()
    assert charge(method, s, wider).item() == pytest.approx(expected, rel=1e-9)


def test_regress_charges_its_projector_s_output():
    s, t = [drawn(4, 6)], [drawn(4, 9, seed=1)]
    for layers in (1, 2, 3):
        projector = ready(SimReg(layers=layers), s, t).projectors[0]
        assert sum(isinstance(part, nn.Linear) for part in projector) == layers
    method = ready(SimReg(layers=1, unit=False), s, t)
    linear = method.projectors[0][0]
    expected = (s[0] @ linear.weight.T + linear.bias - t[0]).square().mean().item()
    assert charge(method, s, t).item() == pytest.approx(expected, rel=1e-9) and expected > 0


def trained(inputs, outputs, optimizer=torch.optim.AdamW, **arguments):
    """A projection after fifty steps of an optimiser with weight decay, towards a random linear map."""
    torch.manual_seed(0)
    project = Isometry(inputs, outputs)
    goal, optimizer = torch.randn(inputs, outputs), optimizer(project.parameters(), weight_decay=0.05, **arguments)
    first = project.linear.weight.detach().clone()
    for _ in range(50):
        z = torch.randn(32, inputs)
        optimizer.zero_grad()
        vkd_loss(project(z), z @ goal).backward()
        optimizer.step()
    assert (project.linear.weight - first).norm() > 0.05 * first.norm()
    return project


@pytest.mark.parametrize(("inputs", "outputs"), WIDTHS)
@pytest.mark.parametrize(("optimizer", "lr"), [(torch.optim.AdamW, 1e-2), (torch.optim.SGD, 1.0)])
def test_vkd_s_columns_stay_orthonormal_over_fifty_steps(inputs, outputs, optimizer, lr):
    """Miles et al. 2024: ||P^T P - I|| <= 1e-5, and the Gram matrix of P z is z's to 1e-4."""
    project = trained(inputs, outputs, optimizer, lr=lr)
    p = project.linear.weight.detach()
    assert p.shape == (outputs, inputs)
    assert (p.T @ p - torch.eye(inputs)).norm() <= 1e-5
    z = torch.randn(20, inputs) / inputs**0.5
    turned = project(z).detach()
    assert torch.allclose(turned @ turned.T, z @ z.T, atol=1e-4)


def test_vkd_s_rows_are_orthonormal_where_the_student_is_wider():
    p = trained(48, 16, lr=1e-2).linear.weight.detach()
    assert (p @ p.T - torch.eye(16)).norm() <= 1e-5


def test_autocast_copies_and_files_leave_the_projection_as_it_is(tmp_path):
    project, z = trained(16, 48, lr=1e-2), torch.randn(20, 16)
    with torch.autocast("cpu", torch.bfloat16):
        turned = project(z.bfloat16())
    assert turned.dtype == torch.float32 and torch.allclose(turned, project(z.bfloat16().float()))
    twin, fresh = copy.deepcopy(project), Isometry(16, 48)
    assert torch.equal(twin(z), project(z)) and not torch.allclose(fresh(z), project(z), atol=0.1)
    save_tensors(project.state_dict(), tmp_path / "method.safetensors")
    fresh.load_state_dict(load_file(tmp_path / "method.safetensors"))
    assert torch.allclose(fresh(z), project(z), atol=1e-6)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(torch.randn_like(p))
    assert not torch.allclose(twin(z), project(z), atol=0.1)


@given(seeds)
def test_vkd_is_zero_at_the_normalised_teacher_alone(seed):
    student, teacher = drawn(4, 8, seed=seed), drawn(4, 8, seed=seed + 1)
    assert vkd_loss(F.layer_norm(teacher, (8,)), teacher) == 0 < vkd_loss(student, teacher)


def test_gradient_through_the_projection_and_into_it():
    z, teacher, project = drawn(3, 2).requires_grad_(), drawn(3, 4, seed=1), Isometry(2, 4).double()
    original = next(project.parameters())
    with torch.no_grad():
        original.normal_(generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: vkd_loss(project(x), teacher), z)
    assert torch.autograd.gradcheck(lambda _: vkd_loss(project(z.detach()), teacher), original)


def test_one_seed_makes_one_projection():
    s, t = [drawn(3, 10, 4), drawn(3, 9, 2, 2)], [drawn(3, 6, 2, 2), drawn(3, 4)]
    found = [charge(ready(VkD(), s, t, seed=seed), s, t).item() for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_a_shift_in_one_of_eight_dimensions():
    """A shift of 0.5 in one of 8 dimensions costs 0.25 / 8 = 0.03125 +- 15 % with 500 directions."""
    torch.manual_seed(0)
    teacher = torch.randn(64, 8, dtype=torch.float64)
    student = teacher + 0.5 * torch.eye(8, dtype=torch.float64)[0]
    assert sliced_wasserstein_loss(student, teacher, random_directions(500, teacher)).item() == pytest.approx(
        0.03125, rel=0.15
    )


@given(seeds, st.integers(1, 20))
def test_directions_have_length_one(seed, width):
    torch.manual_seed(seed)
    assert torch.allclose(random_directions(7, torch.zeros(1, width).double()).norm(dim=1), torch.ones(7).double())


def test_directions_favour_no_axis():
    """The mean of u u^T is I / D on the sphere; 20000 draws are within four standard errors of an entry."""
    torch.manual_seed(0)
    directions = random_directions(20_000, torch.zeros(1, 4, dtype=torch.float64))
    assert torch.allclose(directions.T @ directions / 20_000, torch.eye(4).double() / 4, atol=4 * 0.25 / 20_000**0.5)


@given(seeds)
def test_the_same_points_in_any_order_cost_nothing_and_one_point_its_square(seed):
    points, directions = drawn(6, 4, seed=seed), F.normalize(drawn(30, 4, seed=seed + 1), dim=1)
    assert sliced_wasserstein_loss(points[torch.randperm(6)], points, directions).item() == pytest.approx(0, abs=1e-20)
    one, other = points[:1], points[1:2]
    expected = ((one - other) @ directions.T).square().mean()
    assert torch.isclose(sliced_wasserstein_loss(one, other, directions), expected)


def test_directions_follow_the_seed_and_all_processes_points_are_one_set(monkeypatch):
    """The rows of both networks are gathered, and the directions are the first process's in all."""
    s, t = drawn(4, 3, 2, 2), drawn(4, 6, seed=1)
    method = ready(SlicedWasserstein(), [s], [t])

    def cost(seed):
        torch.manual_seed(seed)
        return method.loss(outputs([s], "s"), outputs([t], "t"), batch_of(4), 0.0)["transport"]

    alone = cost(1)
    assert alone == cost(1) != cost(2)
    monkeypatch.setattr(sliced_wasserstein, "gather_rows", lambda x: torch.cat([x, x + len(x)]))
    torch.manual_seed(1)
    directions, ours = random_directions(100, t), method.regress[0](s.mean((2, 3)))
    expected = sliced_wasserstein_loss(torch.cat([ours, ours + 4]), torch.cat([t, t + 4]), directions)
    assert cost(1) == expected != alone

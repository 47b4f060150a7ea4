"""What is special to the losses between two ViTs: minilm, vitkd."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from kit.batches import batch_of
from kit.features import drawn

from stillroom.methods._errors import IncomparableFeatures
from stillroom.methods.minilm import MiniLM, minilm_loss, shared_heads
from stillroom.methods.vitkd import ViTKD, random_positions, vitkd_loss
from stillroom.types import Output

seeds = st.integers(0, 2**31)


def qkv(seed, tokens=5):
    """Queries, keys and values of widths 4 and 8."""
    return 2 * drawn(2, tokens, 12, seed=seed), 2 * drawn(2, tokens, 24, seed=seed + 1)


@given(seeds, st.sampled_from(["qq", "kk", "vv"]))
def test_a_rotation_within_heads_changes_nothing(seed, relation):
    student, teacher = qkv(seed)
    turn = torch.linalg.qr(drawn(2, 2, seed=seed + 2)).Q
    turned = (student.unflatten(2, (-1, 2)) @ turn).flatten(2)  # heads of two channels, in q, k and v alike
    expected = minilm_loss(student, teacher, relation, 2)
    assert torch.isclose(minilm_loss(turned, teacher, relation, 2), expected, rtol=1e-9)


@given(seeds)
def test_each_relation_reads_its_parts_only(seed):
    student, teacher = qkv(seed)
    for relation in ("qk", "qq", "kk", "vv"):
        for i, letter in enumerate("qkv"):
            other = [part + drawn(*part.shape) if j == i else part for j, part in enumerate(student.chunk(3, 2))]
            same = minilm_loss(torch.cat(other, 2), teacher, relation) == minilm_loss(student, teacher, relation)
            assert bool(same) == (letter not in relation)


@given(seeds)
def test_a_teacher_of_repeated_channels_is_the_same_up_to_its_width(seed):
    """Every channel twice, divided by 2^(1/4): products grow by 2^(1/2), as sqrt(d) does."""
    student, _ = qkv(seed)
    doubled = torch.cat([torch.cat([x, x], 2) / 2**0.25 for x in student.chunk(3, 2)], 2)
    for relation in ("qk", "vv"):
        assert minilm_loss(student, doubled, relation).item() == pytest.approx(0, abs=1e-12)


def test_the_loss_is_a_divergence_of_rows_that_sum_to_one():
    """Nothing is charged for one token; and a key that all queries see more of costs nothing."""
    student, teacher = qkv(0)
    assert minilm_loss(student[:, :1], teacher[:, :1]) == 0
    q, k, v = student.chunk(3, 2)
    moved = torch.cat([q, k + torch.ones_like(k[:, :1]), v], 2)  # adds the same to a query's product with every key
    assert torch.isclose(minilm_loss(moved, teacher, "qk"), minilm_loss(student, teacher, "qk"), rtol=1e-9)


@pytest.mark.parametrize(
    ("widths", "heads"), [((192, 384), 12), ((64, 64), 8), ((100, 75), 5), ((7, 11), 1), ((768, 1024), 8)]
)
def test_heads_that_both_widths_allow(widths, heads):
    assert shared_heads(*widths) == heads


def told(student_tokens, teacher_tokens, widths=(12, 24)):
    tokens = zip((student_tokens, teacher_tokens), widths, strict=True)
    return [Output(pred=torch.zeros(2, 5), taps={"qkv": drawn(2, n, width, seed=width)}) for n, width in tokens]


def test_a_class_token_that_one_side_alone_has_is_left_out():
    method = MiniLM(student_taps=("qkv",), teacher_taps=("qkv",), relations=("vv",))
    student, teacher = told(10, 9)
    method.setup(student, teacher)
    expected = minilm_loss(student.taps["qkv"][:, 1:], teacher.taps["qkv"], "vv", 4)
    assert torch.isclose(method.loss(student, teacher, batch_of(2), 0.0)["vv"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "heads", "why"),
    [((9, 16), None, "numbers of tokens"), ((9, 9, (13, 24)), None, "multiple of 3"), ((9, 9), 3, "3 relation heads")],
)
def test_refuses_what_cannot_be_compared(sizes, heads, why):
    method = MiniLM(student_taps=("qkv",), teacher_taps=("qkv",), heads=heads)
    with pytest.raises(IncomparableFeatures, match=why):
        method.setup(*told(*sizes))
    with pytest.raises(IncomparableFeatures):
        method.setup(Output(pred=torch.zeros(2, 5), taps={"qkv": torch.zeros(2, 12, 3, 3)}), told(9, 9)[1])


@given(st.integers(1, 4), st.integers(1, 14), st.integers(1, 14), st.integers(1, 100), seeds)
@example(1, 2, 5, 90, 0)  # in floating point 10 * (1 - 0.9) is less than 1
def test_exactly_as_many_places_are_masked(images, height, width, percent, seed):
    """Yang et al. 2022: N - floor(N (1 - share)) of each image's tokens, exactly."""
    torch.manual_seed(seed)
    places, share = height * width, Fraction(percent, 100)
    found = random_positions(images, height, width, float(share))
    assert found.shape == (images, height, width) and found.dtype == torch.bool
    assert found.flatten(1).sum(1).tolist() == [places - math.floor(places * (1 - share))] * images


def test_every_place_is_masked_equally_often_and_images_differ():
    torch.manual_seed(0)
    found = random_positions(4000, 3, 3, 0.5)  # five of nine: four standard errors are 0.031
    assert (found.double().mean(0) - 5 / 9).abs().max() < 4 * (5 / 9 * 4 / 9 / 4000) ** 0.5
    assert len({tuple(row) for row in found.flatten(1).tolist()}) == math.comb(9, 5)


def vitkd(student_width=6, images=3, **arguments):
    torch.manual_seed(0)
    method = ViTKD(**arguments)
    method.bind_taps(("a", "b", "c"), ("a", "b", "c"))
    student, teacher = (
        Output(pred=torch.zeros(images, 5), taps={name: torch.randn(images, 17, width) for name in "abc"})
        for width in (student_width, 6)
    )
    method.setup(student, teacher)
    return method, student, teacher


def cost(method, student, teacher, seed=3):
    torch.manual_seed(seed)
    return method.loss(method.project(student), teacher, batch_of(len(student.pred)), 0.0)


def hidden_places():
    torch.manual_seed(3)
    return random_positions(3, 4, 4, 0.5).flatten(1)


def test_shown_tokens_reach_the_generator_where_they_stood_and_hidden_ones_are_charged():
    """The mask token stands at the others."""
    method, student, teacher = vitkd()
    with torch.no_grad():
        method.token.copy_(torch.arange(6.0) + 100)
    seen, hidden = [], hidden_places()
    method.generate[0].register_forward_hook(lambda module, given, said: seen.append(given[0]))
    before = cost(method, student, teacher)["generate"]
    shown = seen[0].flatten(2).transpose(1, 2)
    assert torch.equal(shown[~hidden], student.taps["c"][:, 1:][~hidden])
    assert (shown[hidden] == torch.arange(6.0) + 100).all()
    for places, same in ((~hidden, True), (hidden, False)):
        moved = teacher.taps["c"].clone()
        moved[:, 1:][places] += 5
        after = cost(method, student, Output(pred=teacher.pred, taps=teacher.taps | {"c": moved}))["generate"]
        assert (after == before) == same


def test_equal_networks_mimic_each_other_and_alpha_and_beta_multiply():
    method, student, teacher = vitkd()
    assert cost(method, student, student)["mimic"] == 0
    small, large = (cost(vitkd(**how)[0], student, teacher) for how in ({}, {"alpha": 6e-5, "beta": 9e-6}))
    assert large["mimic"].item() == pytest.approx(2 * small["mimic"].item(), rel=1e-5)
    assert large["generate"].item() == pytest.approx(3 * small["generate"].item(), rel=1e-5)


@pytest.mark.parametrize(("width", "aligned"), [(4, 3 * (4 * 6 + 6)), (6, 0)])
def test_widths_are_aligned_where_they_differ_and_the_class_token_is_not_read(width, aligned):
    method, student, teacher = vitkd(width)
    for tap in student.taps.values():
        tap.requires_grad_()
    sum(cost(method, student, teacher).values()).backward()
    assert all(p.grad.abs().sum() > 0 for p in method.parameters())
    assert all(tap.grad.abs().sum() > 0 and (tap.grad[:, 0] == 0).all() for tap in student.taps.values())
    assert sum(p.numel() for p in method.align.parameters()) == aligned


def test_another_grid_is_brought_to_the_teacher_s():
    """A student whose every 2x2 block of tokens averages to the teacher's token mimics it perfectly."""
    method, student, _ = vitkd()
    maps = {name: tap[:, 1:].transpose(1, 2).unflatten(2, (4, 4)) for name, tap in student.taps.items()}
    pooled = {name: torch.nn.functional.avg_pool2d(x, 2).flatten(2).transpose(1, 2) for name, x in maps.items()}
    teacher = Output(pred=student.pred, taps=pooled)
    method.setup(student, teacher)
    assert cost(method, student, teacher)["mimic"].item() == pytest.approx(0, abs=1e-12)


def test_vitkd_s_gradient_is_the_formula_s_at_the_places_that_count():
    s, t = drawn(2, 3, 2, 2).requires_grad_(), drawn(2, 3, 2, 2, seed=1)
    counts = torch.tensor([[[True, False], [False, True]], [[True, True], [False, False]]])
    assert torch.autograd.gradcheck(lambda x: vitkd_loss(x, t, counts), s)
    (grad,) = torch.autograd.grad(vitkd_loss(s, t, counts), s)
    assert torch.allclose(grad, (s - t).detach() * counts[:, None])  # 2 (s - t) / B, B = 2


def test_vitkd_refuses_vectors():
    method = ViTKD(student_taps=("a", "b"), teacher_taps=("c", "d"))
    tokens, vector = torch.randn(2, 9, 4), torch.randn(2, 4)
    with pytest.raises(IncomparableFeatures):
        method.setup(
            Output(pred=vector, taps={"a": tokens, "b": vector}), Output(pred=vector, taps={"c": tokens, "d": tokens})
        )

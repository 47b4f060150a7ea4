"""What must hold of MiniLM's relations, whatever the numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.errors import StillroomError
from stillroom.methods.minilm import MiniLM, minilm_loss, shared_heads
from stillroom.types import Batch, Output

seeds = st.integers(0, 2**31)
relations = st.sampled_from(["qk", "qq", "kk", "vv"])
laws = settings(deadline=None, max_examples=40)


def two(seed, widths=(4, 8), tokens=5, images=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(images, tokens, 3 * width, generator=generator, dtype=dtype) * 2 for width in widths)


def parts(qkv):
    return qkv.chunk(3, 2)


@laws
@given(seeds, relations, st.sampled_from([1, 2, 4]))
def test_zero_at_equality_and_never_below(seed, relation, heads):
    student, teacher = two(seed)
    assert minilm_loss(student, student.clone(), relation, heads).item() == pytest.approx(0, abs=1e-12)
    assert minilm_loss(student, teacher, relation, heads) > 0


@laws
@given(seeds, st.sampled_from(["qq", "kk", "vv"]))
def test_a_rotation_within_heads_changes_nothing(seed, relation):
    student, teacher = two(seed)
    turn, _ = torch.linalg.qr(torch.randn(2, 2, dtype=torch.float64))
    turned = (student.unflatten(2, (-1, 2)) @ turn).flatten(2)  # heads of two channels, in q, k and v alike
    expected = minilm_loss(student, teacher, relation, 2)
    assert torch.isclose(minilm_loss(turned, teacher, relation, 2), expected, rtol=1e-9)


@laws
@given(seeds, relations)
def test_order_of_tokens_and_images_does_not_matter(seed, relation):
    student, teacher = two(seed)
    images, tokens = torch.randperm(2), torch.randperm(5)
    mixed = minilm_loss(student[images][:, tokens], teacher[images][:, tokens], relation, 2)
    assert torch.isclose(mixed, minilm_loss(student, teacher, relation, 2), rtol=1e-9)


@laws
@given(seeds)
def test_each_relation_reads_its_parts_only(seed):
    student, teacher = two(seed)
    for relation in ("qk", "qq", "kk", "vv"):
        for i, letter in enumerate("qkv"):
            other = [part + torch.randn_like(part) if j == i else part for j, part in enumerate(parts(student))]
            same = minilm_loss(torch.cat(other, 2), teacher, relation) == minilm_loss(student, teacher, relation)
            assert bool(same) == (letter not in relation)


@laws
@given(seeds)
def test_a_teacher_of_repeated_channels_is_the_same_up_to_its_width(seed):
    """Every channel twice, divided by 2^(1/4): products grow by 2^(1/2), as sqrt(d) does."""
    student, _ = two(seed)
    doubled = torch.cat([torch.cat([x, x], 2) / 2**0.25 for x in parts(student)], 2)
    for relation in ("qk", "vv"):
        assert minilm_loss(student, doubled, relation).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("widths", "heads"), [((192, 384), 12), ((64, 64), 8), ((100, 75), 5), ((7, 11), 1), ((768, 1024), 8)]
)
def test_heads_that_both_widths_allow(widths, heads):
    assert shared_heads(*widths) == heads


def test_gradcheck():
    student, teacher = two(0, tokens=3, images=1)
    for relation in ("qk", "vv"):
        assert torch.autograd.gradcheck(lambda x, r=relation: minilm_loss(x, teacher, r, 2), student.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype):
    student, teacher = two(0, (16, 16), dtype=torch.float32)
    assert minilm_loss(student.to(dtype) * 1000, teacher.to(dtype) * 1000, "vv", 2).isfinite()
    expected = minilm_loss(student, teacher, "vv", 2).item()
    assert minilm_loss(student.to(dtype), teacher.to(dtype), "vv", 2) == pytest.approx(expected, rel=0.02)


def test_autocast_does_not_round_the_products():
    student, teacher = two(0, (16, 16), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = minilm_loss(student, teacher, "qk", 2)
    assert inside == minilm_loss(student, teacher, "qk", 2)


def test_one_image_one_token_and_no_image():
    student, teacher = two(0, images=1)
    assert minilm_loss(student, teacher).isfinite()
    assert minilm_loss(student[:, :1], teacher[:, :1]) == 0
    none = torch.randn(0, 5, 12, requires_grad=True)
    loss = minilm_loss(none, torch.randn(0, 5, 24))
    loss.backward()
    assert loss == 0 and none.grad.shape == (0, 5, 12)


def told(student_tokens, teacher_tokens, widths=(12, 24)):
    torch.manual_seed(0)
    tokens = zip((student_tokens, teacher_tokens), widths, strict=True)
    return [Output(pred=torch.zeros(2, 5), taps={"qkv": torch.randn(2, n, width)}) for n, width in tokens]


def test_a_class_token_that_one_side_alone_has_is_left_out():
    method = MiniLM(student_taps=("qkv",), teacher_taps=("qkv",), relations=("vv",))
    student, teacher = told(10, 9)
    method.setup(student, teacher)
    batch = Batch(images=torch.zeros(2, 1, 2, 2), target=torch.zeros(2), keys=torch.arange(2))
    expected = minilm_loss(student.taps["qkv"][:, 1:], teacher.taps["qkv"], "vv", 4)
    assert torch.isclose(method.loss(student, teacher, batch, 0.0)["vv"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "heads", "why"),
    [
        ((9, 16), None, "different numbers of patches"),
        ((9, 9, (13, 24)), None, "3 divides"),
        ((9, 9), 3, "3 relation heads do not divide both widths"),
    ],
)
def test_refuses_what_cannot_be_compared(sizes, heads, why):
    method = MiniLM(student_taps=("qkv",), teacher_taps=("qkv",), heads=heads)
    with pytest.raises(StillroomError, match="SR-M330") as caught:
        method.setup(*told(*sizes))
    assert why in str(caught.value)


def test_refuses_maps():
    method = MiniLM(student_taps=("qkv",), teacher_taps=("qkv",))
    maps = Output(pred=torch.zeros(2, 5), taps={"qkv": torch.zeros(2, 12, 3, 3)})
    with pytest.raises(StillroomError, match="SR-M330"):
        method.setup(maps, told(9, 9)[1])


@pytest.mark.parametrize("bad", [{"relations": ()}, {"relations": ("qv",)}, {"relations": ("qk", "qk")}, {"heads": 0}])
def test_refuses_bad_arguments(bad):
    (name,) = bad
    with pytest.raises(ValueError, match=f"{name} must be .* got"):
        MiniLM(**bad)

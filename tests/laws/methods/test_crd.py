"""Properties of contrastive representation distillation and its memory (techniques.md 17)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from stillroom.methods.crd import CRD, crd_loss
from stillroom.types import Batch, Output

seeds = st.integers(0, 2**31)


def units(count, width, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, width, generator=generator, dtype=dtype)
    return x / x.norm(dim=1, keepdim=True)


def batch(labels):
    return Batch(images=torch.zeros(len(labels), 1, 1, 1), target=torch.tensor(labels), keys=torch.arange(len(labels)))


def outputs(student, teacher):
    return Output(pred=student, taps={"a": student}), Output(pred=teacher, taps={"b": teacher})


def ready(ours=6, theirs=8, **arguments):
    method = CRD(**arguments)
    method.bind_taps(("a",), ("b",))
    torch.manual_seed(3)
    method.setup(*outputs(torch.zeros(2, ours), torch.zeros(2, theirs)))
    return method


def charge(method, seed=0, labels=(0, 1, 2, 0, 1)):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(len(labels), 6, generator=generator, requires_grad=True)
    teacher = torch.randn(len(labels), 8, generator=generator)
    return student, method.loss(*outputs(student, teacher), batch(list(labels)), 0.0)["nce"]


@pytest.mark.parametrize("seed", range(4))
def test_it_finds_planted_pairs_after_twenty_steps(seed):
    """techniques.md 17: AUC of positive scores > 0.95 after 20 steps on planted pairs; buffer rows unit norm.

    Two linear views of 16 hidden numbers, one of them noisy; the pairs that are scored were never trained on.
    """
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(21 * 64, 16, generator=generator)
    student = hidden @ torch.randn(16, 24, generator=generator) + 0.3 * torch.randn(21 * 64, 24, generator=generator)
    teacher = hidden @ torch.randn(16, 32, generator=generator)
    method = ready(24, 32, dim=32, bank=512)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.01)

    def auc(rows):
        with torch.no_grad():
            s, t = method.embeddings(*outputs(student[rows], teacher[rows]))
        return roc_auc_score(torch.eye(64).flatten(), (s @ t.T).flatten())

    unseen = slice(20 * 64, None)
    before = auc(unseen)
    for step in range(20):
        rows = slice(step * 64, (step + 1) * 64)
        optimizer.zero_grad()
        method.loss(*outputs(student[rows], teacher[rows]), batch([-1] * 64), 0.0)["nce"].backward()
        optimizer.step()
    assert before < 0.75 < 0.95 < auc(unseen)
    for bank in (method.student_bank, method.teacher_bank):
        torch.testing.assert_close(bank.norm(dim=1), torch.ones(512))


def test_the_memory_holds_the_last_rows_with_their_classes():
    method = ready(dim=4, bank=8)
    random = method.student_bank.clone()
    charge(method, 0, (0, 1, 2, 3, 4))
    assert method.place == 5 and method.classes.tolist() == [0, 1, 2, 3, 4, -1, -1, -1]
    assert torch.equal(method.student_bank[5:], random[5:])
    student, _ = charge(method, 1, (5, 6, 7, 8, 9))
    assert method.place == 2 and method.classes.tolist() == [8, 9, 2, 3, 4, 5, 6, 7]
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(method.student_embed(student))
    torch.testing.assert_close(method.student_bank[[5, 6, 7, 0, 1]], wanted)


def test_a_batch_larger_than_the_memory_leaves_its_end():
    method = ready(dim=4, bank=3)
    charge(method, 0, (0, 1, 2, 3, 4))
    assert method.place == 2 and method.classes.tolist() == [3, 4, 2]


def test_it_resumes_exactly():
    """Everything that a step reads is in the state: another object loaded from it goes on with the same numbers."""
    one = ready(dim=4, bank=16)
    for seed in range(3):
        charge(one, seed)
    two = CRD(dim=4, bank=16, student_taps=("a",), teacher_taps=("b",))
    torch.manual_seed(99)
    two.setup(*outputs(torch.zeros(2, 6), torch.zeros(2, 8)))
    two.load_state_dict(one.state_dict())
    for seed in range(3, 6):
        assert torch.equal(charge(one, seed)[1], charge(two, seed)[1])
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), two.buffers(), strict=True))


def test_evaluation_leaves_the_memory_alone():
    method = ready(dim=4, bank=16).eval()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    charge(method)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_images_of_one_class_are_no_strangers():
    """With the bank full of one class, an image of that class pays for the pair alone."""
    method = ready(dim=4, bank=5)
    charge(method, 0, (7,) * 5)
    method.eval()
    alone = charge(method, 1, (7,) * 5)[1]
    apart = charge(method, 1, (6,) * 5)[1]
    assert alone < apart and charge(method, 1, (-1,) * 5)[1] == apart


@pytest.mark.parametrize("labels", [(0,), (0, 1, 2, 0, 1)])
def test_gradients_reach_the_student_and_both_embeddings(labels):
    method = ready(dim=4, bank=3)
    student, value = charge(method, 0, labels)
    value.backward()
    assert value > 0 and student.grad.abs().sum() > 1e-6
    assert all(p.grad is not None and p.grad.abs().sum() > 1e-6 for p in method.parameters())


def test_no_image_and_labels_that_are_no_classes():
    method = ready(dim=4, bank=3)
    student, value = charge(method, 0, ())
    value.backward()
    assert value == 0 and student.grad.shape == (0, 6)
    for target in (None, torch.rand(5), {"boxes": torch.rand(5, 4)}):
        one = Batch(images=torch.zeros(5, 1, 1, 1), target=target, keys=torch.arange(5))
        assert method.loss(*outputs(torch.randn(5, 6), torch.randn(5, 8)), one, 0.0)["nce"].isfinite()
    assert method.classes.tolist() == [-1, -1, -1]


@given(seed=seeds, negatives=st.integers(1, 9))
def test_above_zero_and_less_for_better_pairs(seed, negatives):
    anchor, other, bank = units(4, 5, seed), units(4, 5, seed + 1), units(negatives, 5, seed + 2)
    counted, scale = torch.ones(4, negatives, dtype=torch.bool), torch.tensor(2.0, dtype=torch.float64)
    value = crd_loss(anchor, other, bank, counted, scale)
    assert 0 < crd_loss(anchor, anchor, bank, counted, scale) < value
    order = torch.randperm(negatives)
    assert torch.isclose(crd_loss(anchor, other, bank[order], counted, scale), value, rtol=1e-10)


@given(seed=seeds)
@settings(max_examples=5, deadline=None)
def test_gradient(seed):
    bank, other = units(6, 3, seed), units(4, 3, seed + 1)
    counted = torch.rand(4, 6, generator=torch.Generator().manual_seed(seed)) > 0.3
    scale = torch.tensor(1.5, dtype=torch.float64)
    anchor = units(4, 3, seed + 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: crd_loss(a, other, bank, counted, scale, 0.5), anchor)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite(dtype):
    method = ready(dim=4, bank=8)
    generator = torch.Generator().manual_seed(0)
    seen = outputs(*(torch.randn(5, width, generator=generator).to(dtype) * 1000 for width in (6, 8)))
    assert method.loss(*seen, batch([0, 1, 2, 3, 4]), 0.0)["nce"].isfinite()
    with torch.autocast("cpu", dtype):
        assert method.loss(*seen, batch([0, 1, 2, 3, 4]), 0.0)["nce"].isfinite()
    assert method.student_bank.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"bank": 0}, "bank must be at least 1, got 0"),
        ({"temperature": 0}, "temperature must be above 0, got 0"),
        ({"student_taps": ("a", "b")}, "student_taps must be one tap"),
    ],
)
def test_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        CRD(**arguments)

"""What every file in `methods/` must do. A new file is tested without anybody adding it here."""

from __future__ import annotations

import inspect
import typing

import pytest
import torch

from stillroom.learner import Learner
from stillroom.methods.method import Method
from stillroom.models import build
from stillroom.plugins import choices, module, pick
from stillroom.tasks.classification import Classification
from stillroom.teachers.frozen import Frozen
from stillroom.types import Batch

NAMES = choices("methods")
TAPS = {"student_tap": "layer2", "teacher_tap": "layer2"}


def networks():
    torch.manual_seed(0)
    student = build("resnet8", classes=5, channels=1, size=8)
    teacher = build("resnet14", classes=5, channels=1, size=8, width=2.0)
    return student, Frozen(teacher)


def made(name):
    kind = pick("methods", name)
    takes = inspect.signature(kind).parameters
    return kind(**{key: value for key, value in TAPS.items() if key in takes})


def batch(images=6):
    torch.manual_seed(1)
    return Batch(images=torch.rand(images, 1, 8, 8), target=torch.randint(5, (images,)), keys=torch.arange(images))


def ready(name):
    student, teacher = networks()
    method, one = made(name), batch()
    torch.manual_seed(2)
    with torch.no_grad():
        method.setup(student(one.images, method.student_taps), teacher((one.images,), one.keys, method.teacher_taps))
    return student, teacher, method


def charge(student, teacher, method, one):
    said = teacher((one.images,), one.keys, method.teacher_taps)
    return method.loss(method.project(student(one.images, method.student_taps)), said, one, 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_is_a_method_with_a_source(name):
    kind = pick("methods", name)
    assert issubclass(kind, Method) and kind.__doc__
    assert "http" in inspect.getdoc(module("methods", name))
    hints = typing.get_type_hints(kind.__init__)
    for parameter in list(inspect.signature(kind).parameters.values()):
        assert parameter.kind is parameter.KEYWORD_ONLY and parameter.name in hints


@pytest.mark.parametrize("name", NAMES)
def test_keeps_its_arguments(name):
    method = made(name)
    for parameter in inspect.signature(type(method)).parameters.values():
        if parameter.default is not parameter.empty:
            assert getattr(method, parameter.name) == parameter.default


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("images", [1, 6])
def test_terms_are_finite_scalars_and_teach_only_the_student(name, images):
    student, teacher, method = ready(name)
    before = {key: value.clone() for key, value in teacher.network.state_dict().items()}
    student.train(images > 1)
    terms = charge(student, teacher, method, batch(images))
    assert terms and all(value.ndim == 0 and value.isfinite() for value in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())
    assert all(p.grad is not None for p in method.parameters())
    assert all(p.grad is None for p in teacher.network.parameters())
    assert all(torch.equal(value, before[key]) for key, value in teacher.network.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_two_with_one_seed_agree_and_state_travels(name):
    (student, teacher, one), (_, _, two) = ready(name), ready(name)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    with torch.no_grad():
        for p in two.parameters():
            p.add_(1)
    two.load_state_dict(one.state_dict())
    student.eval()
    for a, b in zip(
        charge(student, teacher, one, batch()).values(), charge(student, teacher, two, batch()).values(), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_its_parts_are_trained_clipped_and_saved_with_the_student(name):
    student, _, method = ready(name)
    learner = Learner(student, Classification(), {name: method}, {"task": 1.0, name: method.weight})
    own = {id(p) for p in method.parameters()}
    assert own <= {id(p) for p in learner.parameters()}
    assert not own & {id(p) for p in student.parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_autocast_stays_finite(name):
    student, teacher, method = ready(name)
    with torch.autocast("cpu", torch.bfloat16):
        terms = charge(student, teacher, method, batch())
    assert all(value.isfinite() for value in terms.values())

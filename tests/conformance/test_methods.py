"""What every file in `methods/` must do. A new file is tested without anybody adding it here."""

from __future__ import annotations

import dataclasses
import inspect
import typing

import pytest
import torch
from kit.pairs import PAIRS, answers, batch, charge, ready, works

from stillroom.config.plugins import choices, module, pick
from stillroom.methods.method import Method, Reads
from stillroom.tasks.classification import Classification
from stillroom.training.distiller import Distiller

NAMES = choices("methods")
SAYS = ("Differs:", "Use:", "Avoid:")


FOR_MAPS = ("cwd", "mgd", "skd", "pkd", "rkd")
"""Of the methods of features, which see nothing of what a network says in the end, those made for dense tasks."""


def each(test):
    found = [(name, pair) for pair in PAIRS for name in NAMES if tried(name, pair)]
    return pytest.mark.parametrize(("name", "pair"), found)(test)


def tried(name, pair):
    """Methods of features are tried on classifiers, and a few of them elsewhere too."""
    kind = pick("methods", name)
    return kind.teaches(answers(pair)) and (
        answers(pair) == "classes" or kind.reads == "pred" or kind.output_kind or name in FOR_MAPS
    )


def usable(name, pair):
    if code := works(name, pair):
        pytest.skip(f"{name} refuses {pair}: {code}")
    return ready(name, pair)


@pytest.mark.parametrize("name", NAMES)
def test_is_a_method_with_a_source_and_advice(name):
    kind = pick("methods", name)
    assert issubclass(kind, Method) and kind.reads in typing.get_args(Reads) and kind.weight > 0
    assert "http" in inspect.getdoc(module("methods", name)).partition("\n")[0]
    paragraphs = [p.strip() for p in inspect.getdoc(kind).split("\n\n")]
    assert [word for word in SAYS if any(p.startswith(word) for p in paragraphs)] == list(SAYS)
    hints = typing.get_type_hints(kind.__init__)
    for parameter in inspect.signature(kind).parameters.values():
        assert parameter.kind is parameter.KEYWORD_ONLY and parameter.name in hints


@pytest.mark.parametrize("name", NAMES)
def test_the_maths_is_a_function_with_a_docstring(name):
    file = module("methods", name)
    functions = [f for f in vars(file).values() if inspect.isfunction(f) and f.__module__ == file.__name__]
    losses = [f for f in functions if f.__name__.endswith("_loss") and not f.__name__.startswith("_")]
    assert losses and all("Returns:" in (f.__doc__ or "") and "Args:" in f.__doc__ for f in losses)


@pytest.mark.parametrize("name", NAMES)
def test_keeps_its_arguments(name):
    method = pick("methods", name)()
    for parameter in inspect.signature(type(method)).parameters.values():
        assert getattr(method, parameter.name) == parameter.default


@pytest.mark.parametrize("name", NAMES)
def test_works_with_some_pair_and_refuses_the_others_in_words(name):
    codes = {pair: works(name, pair) for pair in PAIRS if tried(name, pair)}
    assert "" in codes.values() and set(codes.values()) <= {"", "SR-M306", "SR-M330", "SR-M333"}


@each
@pytest.mark.parametrize("images", [1, 6])
def test_terms_are_finite_scalars_and_teach_only_the_student(name, pair, images):
    student, teacher, method = usable(name, pair)
    before = {key: value.clone() for key, value in teacher.network.state_dict().items()}
    student.train(images > 1)
    method.train(images > 1)
    terms = charge(student, teacher, method, batch(images, pair))
    assert terms and all(value.ndim == 0 and value.isfinite() for value in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    grads = [p.grad for p in student.parameters() if p.grad is not None]
    assert grads and all(grad.isfinite().all() for grad in grads)
    assert images == 1 or any(grad.abs().sum() > 0 for grad in grads)  # a relation needs two
    assert all(p.grad is not None for p in method.parameters())
    assert all(p.grad is None for p in teacher.network.parameters())
    assert all(torch.equal(value, before[key]) for key, value in teacher.network.state_dict().items())


@each
def test_two_with_one_seed_agree_and_state_travels(name, pair):
    (student, teacher, one), (_, _, two) = usable(name, pair), ready(name, pair)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    with torch.no_grad():
        for p in two.parameters():
            p.add_(1e-3)
    charge(student.train(), teacher, one, batch(pair=pair))  # fills what a method remembers
    two.load_state_dict(one.state_dict())
    student.eval()
    said = []
    for method in (one, two):
        torch.manual_seed(3)  # masks and directions
        said.append(charge(student, teacher, method, batch(pair=pair)))
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(*(s.values() for s in said), strict=True))


@each
def test_its_parts_are_trained_clipped_and_saved_with_the_student(name, pair):
    student, _, method = usable(name, pair)
    learner = Distiller(student, Classification(), {name: method}, {"task": 1.0, name: method.weight})
    own = {id(p) for p in method.parameters()}
    assert own <= {id(p) for p in learner.parameters()}
    assert not own & {id(p) for p in student.parameters()}


@each
def test_autocast_stays_finite(name, pair):
    student, teacher, method = usable(name, pair)
    with torch.autocast("cpu", torch.bfloat16):
        terms = charge(student, teacher, method, batch(pair=pair))
    assert all(value.isfinite() for value in terms.values())


@each
def test_a_step_down_its_gradient_brings_it_down(name, pair):
    """For some length of step; in double precision, and from one state of what the method remembers."""
    student, teacher, method = usable(name, pair)
    student, teacher.network = student.double().eval(), teacher.network.double()
    trained = [*student.parameters(), *method.double().parameters()]

    memory = [buffer.clone() for buffer in method.buffers()]
    seen = batch(16 if answers(pair) == "classes" else 4, pair)  # a dense prediction has many rows an image

    def charged():
        for buffer, old in zip(method.buffers(), memory, strict=True):
            buffer.data.copy_(old)
        return torch.stack(list(charge(student, teacher, method, seen).values())).sum()

    loss = charged()
    grads = torch.autograd.grad(loss, trained, allow_unused=True)
    length = torch.stack([grad.square().sum() for grad in grads if grad is not None]).sum().sqrt()
    before, start = loss.item(), [p.detach().clone() for p in trained]
    reached = []
    for size in (1e-1, 1e-2, 1e-3, 1e-4):
        with torch.no_grad():
            for p, origin, grad in zip(trained, start, grads, strict=True):
                p.copy_(origin - size * grad / length if grad is not None else origin)
        reached.append(charged().item())
    assert min(reached) < before


@pytest.mark.parametrize("name", NAMES)
def test_what_teaches_nothing_without_labels_says_so(name):
    pair = "cnn from cnn"
    if not tried(name, pair) or works(name, pair):
        pair = "vit from vit"
    if not tried(name, pair):
        pytest.skip("for networks without labels of images")
    student, teacher, method = usable(name, pair)
    one = batch(6, pair)
    blind = dataclasses.replace(one, target=torch.full_like(one.target, -1))
    terms = charge(student.train(), teacher, method.train(), blind)
    torch.stack(list(terms.values())).sum().backward()
    grads = [p.grad for p in student.parameters() if p.grad is not None]
    assert all(value.isfinite() for value in terms.values()) and all(grad.isfinite().all() for grad in grads)
    assert any(grad.abs().sum() > 0 for grad in grads) != pick("methods", name).needs_labels

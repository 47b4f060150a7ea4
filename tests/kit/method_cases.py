"""Every method of the folder, with every set of arguments that it is tried with."""

from __future__ import annotations

import pytest
import torch

from kit.declared import DECLARED
from kit.method_inputs import connected, pair, terms_of, variants
from kit.method_laws import Declared
from stillroom.config.plugins import choices, pick

NAMES = choices("methods")
KINDS = {name: pick("methods", name) for name in NAMES}
ROWS = {name: DECLARED.get(name, Declared()) for name in NAMES}
CASES = {
    " ".join([name, *(f"{key}={value}" for key, value in arguments.items())]): (name, arguments)
    for name in NAMES
    for arguments in [*variants(KINDS[name]), *ROWS[name].variants]
    if not set(arguments) & set(ROWS[name].without)
}
"""What a test is called with -> the method's name and its arguments."""


def each(test):
    return pytest.mark.parametrize("case", CASES)(test)


def made(case, images=4, *, form="maps", seed=0, **more):
    """The method of a case, set up, and what it reads."""
    name, arguments = CASES[case]
    method = KINDS[name](**arguments | more)
    return connected(method, pair(method, form=form, seed=seed)), pair(method, images, form=form, seed=seed)


def total(method, given, **how):
    return torch.stack(list(terms_of(method, given, **how).values())).sum()


def costs(method, given, **how):
    return {name: value.item() for name, value in terms_of(method, given, **how).items()}


def same(found, expected, rel=1e-7):
    assert found == pytest.approx(expected, rel=rel, abs=1e-9)


def learns(method, given):
    """The gradients of the loss by what the student gave and by what the method learns, none missing."""
    leaves = [*given.leaves()[0 if method.reads in ("pred", "members") else 1 :], *method.parameters()]
    grads = torch.autograd.grad(total(method, given), leaves, allow_unused=True)
    return [grad for grad in grads if grad is not None], len(leaves)

"""Every loss against what its method declares: values at equality, bounds, and what it must not notice."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit.declared import DECLARED
from kit.method_laws import changed

from stillroom.config.plugins import choices

LAWS = {f"{name} {key}".strip(): law for name, row in DECLARED.items() for key, law in row.laws.items()}
seeds = st.integers(0, 2**31)


def each(test):
    return pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)(test)


def close(found, expected, law):
    return torch.allclose(found, expected, rtol=law.rel, atol=law.abs)


def test_the_table_speaks_of_methods_that_there_are():
    assert set(DECLARED) <= set(choices("methods"))


@each
@given(seed=seeds)
def test_values_at_equality_and_within_the_bounds(law, seed):
    drawn = law.draw(seed)
    found = law(drawn)
    assert found.ndim == 1 and found.isfinite().all() and found.dtype == torch.float64
    if law.least is not None:
        assert (found >= law.least).all()
    elif law.equal is not None:
        assert (found > law.equal).all()
    assert (found <= (law.most(drawn) if callable(law.most) else law.most)).all()
    if law.equal is not None:
        same = law(type(drawn)(drawn.student, drawn.student.clone(), drawn.target))
        assert (same.abs() <= law.equal).all()


@each
@given(seed=seeds)
def test_what_it_must_not_notice(law, seed):
    drawn = law.draw(seed)
    found = law(drawn)
    for name in law.keeps:
        assert close(law(changed(name, drawn, seed)), found, law), name
    if law.degree is not None:
        scaled = type(drawn)(3.0 * drawn.student, 3.0 * drawn.teacher, drawn.target)
        assert close(law(scaled), found * 3.0**law.degree, law)


@pytest.mark.parametrize("name", [name for name, law in LAWS.items() if law.check is not None])
@pytest.mark.parametrize("seed", [0, 1])
def test_gradient(name, seed):
    law = LAWS[name]
    drawn = law.draw(seed, B=3, K=4, C=3, D=4, N=3)
    assert torch.autograd.gradcheck(
        lambda x: law(type(drawn)(x, drawn.teacher, drawn.target)), drawn.student.requires_grad_(), **law.check
    )


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_first(law, dtype):
    """Rounded numbers cost what they cost in float32, under autocast too; large ones have a finite gradient."""
    drawn = law.draw(3, dtype=dtype, B=5, K=8)
    rounded = type(drawn)(drawn.student.float(), drawn.teacher.float(), drawn.target)
    found, expected = law(drawn), law(rounded)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=law.near, atol=1e-6)
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(law(rounded), expected, rtol=law.near, atol=1e-6)
    loud = (drawn.student * law.loud).requires_grad_()
    cost = law(type(drawn)(loud, drawn.teacher * law.loud, drawn.target)).sum()
    assert cost.isfinite()
    if law.check is not None:
        cost.backward()
        assert loud.grad.isfinite().all()


@each
def test_no_image_costs_nothing(law):
    drawn = law.draw(0, B=0)
    none = drawn.student.float().requires_grad_()
    found = law(type(drawn)(none, drawn.teacher.float(), drawn.target))
    assert found.isfinite().all() and not found[0]
    if law.check is not None:
        found.sum().backward()
        assert none.grad.shape == none.shape

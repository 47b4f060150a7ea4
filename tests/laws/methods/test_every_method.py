"""Every method of the folder on made-up tensors. A new file is tested without anybody adding it here.

What it declares in `kit.declared` makes some of it stricter; without a row it has the defaults.
"""

from __future__ import annotations

import pytest
import torch
from kit.method_cases import CASES, KINDS, NAMES, ROWS, costs, each, learns, made, same, total
from kit.method_inputs import FORMS, OWN, Pair, terms_of

from stillroom.methods._errors import IncomparableFeatures
from stillroom.types import Output

TAPPED = [name for name in NAMES if KINDS[name].reads not in ("pred", "members", *OWN)]
HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TAPPED)
def test_every_form_of_feature_teaches_or_is_refused(name, form):
    """And so does one image, unless it is images that are compared."""
    refused, one = ROWS[name].refuses, ROWS[name].relations
    try:
        method, given = made(name, form=form)
    except IncomparableFeatures as found:
        assert form in (FORMS if refused is None else refused) and form != "maps"
        assert [found.values[side] for side in "st"] == [[2, *shape] for shape in FORMS[form]]
        return
    assert refused is None or form not in refused
    grads, leaves = learns(method, given)
    assert len(grads) == leaves and all(grad.isfinite().all() and grad.abs().sum() > 0 for grad in grads)
    grads, _ = learns(method, given.rows(slice(1)))
    assert all(grad.isfinite().all() for grad in grads) and (one or any(grad.abs().sum() > 0 for grad in grads))


@each
def test_terms_are_scalars_that_everything_learns_from(case):
    method, given = made(case)
    before = [x.clone() for x in (given.teacher.pred, *given.teacher.taps.values())]
    terms = terms_of(method, given)
    assert terms and all(x.ndim == 0 and x.dtype == ROWS[CASES[case][0]].precision for x in terms.values())
    grads, leaves = learns(method, given)
    # A prediction that is not read, as by a head of its own, gets no gradient; every tap and parameter does.
    assert len(grads) >= leaves - (method.reads == "pred" and bool(method.student_taps))
    assert all(grad.isfinite().all() and grad.abs().sum() > 0 for grad in grads)
    assert all(
        torch.equal(a, b) for a, b in zip(before, (given.teacher.pred, *given.teacher.taps.values()), strict=True)
    )


@each
def test_gradient(case):
    name, arguments = CASES[case]
    check = ROWS[name].check
    if isinstance(check, str):
        pytest.skip(check)
    method, given = made(case, 4, **{k: v for k, v in ROWS[name].arguments.items() if k not in arguments})
    method.eval()
    leaves = given.leaves()

    def cost(*leaves):
        seen = Output(pred=leaves[0], taps=dict(zip(given.student.taps, leaves[1:], strict=True)))
        return total(method, Pair(seen, given.teacher, given.batch))

    assert torch.autograd.gradcheck(cost, leaves, fast_mode=True, **check)


@each
def test_two_calls_with_one_seed_agree_and_images_have_no_order(case):
    """And a batch costs the mean of its images, unless it compares them. In evaluation, so that nothing is remembered.

    Where masks or directions are drawn, with another seed they are others: those draw for images as they stand.
    """
    row = ROWS[CASES[case][0]]
    rel = 1e-7 if row.precision == torch.float64 else 1e-5
    method, given = made(case)
    method.eval()
    found = costs(method, given)
    assert costs(method, given) == found
    if costs(method, given, seed=8) != found:
        return
    same(costs(method, given.rows(torch.tensor([2, 0, 3, 1]))), found, rel)
    if row.alone:
        images = [costs(method, given.rows(slice(i, i + 1))) for i in range(4)]
        same({name: sum(one[name] for one in images) / 4 for name in found}, found, rel)
    elif not row.relations:
        same(costs(method, given.rows(torch.arange(8) % 4)), found, rel)


@each
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_widened_first(case, dtype):
    method, given = made(case)
    method = method.float().eval()
    halves = given.map(lambda x: x.to(dtype))
    rounded = halves.map(lambda x: x.float())
    expected = costs(method, rounded)
    found = terms_of(method, halves)
    assert all(value.dtype == torch.float32 for value in found.values())
    assert {k: v.item() for k, v in found.items()} == pytest.approx(expected, rel=1e-3, abs=1e-6)
    with torch.autocast("cpu", dtype):
        cast = costs(method, rounded)
    assert cast == pytest.approx(expected, rel=1e-3 if not list(method.parameters()) else 0.5, abs=1e-6)


def louder(x, factor=1000):
    """Boxes stay in the image, and only their scores grow."""
    if x.ndim == 3 and x.shape[1] == 9:
        return torch.cat([x[..., :4], x[..., 4:] * factor], -1)
    return x * factor


@each
@pytest.mark.parametrize("dtype", HALVES)
def test_large_numbers_have_a_finite_gradient(case, dtype):
    method, given = made(case)
    method.float()
    grads, _ = learns(method, given.map(lambda x: louder(x).to(dtype)))
    assert all(grad.isfinite().all() for grad in grads)


@each
def test_no_image(case):
    method, given = made(case, 0)
    terms = terms_of(method, given)
    assert all(value.isfinite() for value in terms.values())
    assert [name for name, value in terms.items() if value] == list(ROWS[CASES[case][0]].empty)
    grads, _ = learns(method, given)
    assert all(grad.isfinite().all() for grad in grads)


@each
@pytest.mark.parametrize("images", [1, 4])
def test_numbers_that_are_all_equal_have_a_finite_gradient(case, images):
    """Dead maps, flat logits, images of which each is as the next."""
    for seed in (0, 1):
        method, given = made(case, images, seed=seed)
        method.float()
        dead = given.map(lambda x: torch.zeros_like(x).float(), teacher=lambda x: x.float())
        alike = given.map(lambda x: x[:1].expand_as(x).float())
        silent = given.map(lambda x: x.float(), teacher=lambda x: torch.zeros_like(x).float())
        for one in (dead, alike, silent):
            grads, _ = learns(method, one.map(lambda x: x.clone()))
            assert all(grad.isfinite().all() for grad in grads)

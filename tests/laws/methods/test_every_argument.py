"""Every method's arguments and labels: what is refused, what changes the loss, what is left out of it."""

from __future__ import annotations

import inspect
import typing

import pytest
import torch
from kit.batches import batch_of
from kit.method_cases import CASES, KINDS, NAMES, ROWS, costs, made, same, total
from kit.method_inputs import Pair, connected, terms_of

from stillroom.methods._errors import LabelsNotClasses
from stillroom.types import Output


@pytest.mark.parametrize("name", NAMES)
def test_what_a_constructor_refuses(name):
    """No number that is none, no word that is none, nothing that the table calls bad: each is named with its value."""
    hints = typing.get_type_hints(KINDS[name].__init__)
    words = {key: "nonsense" for key in hints if typing.get_origin(hints[key]) is typing.Literal}
    numbers = {key: float("nan") for key in hints if hints[key] is float} | {
        key: -1 for key in hints if hints[key] is int
    }
    for arguments in [*({key: value} for key, value in (words | numbers).items()), *ROWS[name].bad]:
        (key, value), *_ = arguments.items()
        with pytest.raises(ValueError) as caught:
            KINDS[name](**arguments)
        assert str(caught.value).startswith(key), arguments
        assert str(value).strip("'()") in str(caught.value).replace("[", "(").replace("]", ")"), arguments


@pytest.mark.parametrize("case", [case for case, (name, how) in CASES.items() if how and how not in ROWS[name].same])
def test_every_argument_changes_what_is_charged(case):
    """No word, flag or number of the constructor is taken and then forgotten."""
    method, given = made(case)
    plain, _ = made(CASES[case][0])
    assert total(method, given).item() != pytest.approx(total(plain, given).item(), rel=1e-6)


DENSE = [
    case for case, (name, _) in CASES.items() if KINDS[name].default_taps == "pred" and KINDS[name].supports("pixels")
]


@pytest.mark.parametrize("case", [case for case in DENSE if not KINDS[CASES[case][0]]().student_taps])
def test_pixels_are_rows(case):
    name, arguments = CASES[case]
    draw = torch.Generator().manual_seed(0)
    maps = [3 * torch.randn(2, 5, 3, 4, generator=draw, dtype=torch.float64) for _ in range(2)]
    target = torch.randint(5, (2, 3, 4), generator=draw)
    found = []
    for dense in (True, False):
        shaped = [x if dense else x.movedim(1, -1).reshape(-1, 5) for x in maps]
        given = Pair(*(Output(pred=x) for x in shaped), batch_of(len(shaped[0]), target if dense else target.flatten()))
        found.append(costs(connected(KINDS[name](**arguments), given), given))
    same(found[0], found[1])


STANDARDISED = [name for name in NAMES if "standardised" in inspect.signature(KINDS[name]).parameters]


@pytest.mark.parametrize("name", STANDARDISED)
@pytest.mark.parametrize("seed", range(3))
def test_standardised_ignores_either_network_s_scale_and_shift(name, seed):
    """Sun et al. 2024: z -> a z + b, a > 0."""
    method, given = made(f"{name} standardised=True", seed=seed)
    method.eval()
    found = costs(method, given)
    same(costs(method, given.map(lambda z: 7 * z + 3, teacher=lambda z: z)), found, rel=1e-5)
    same(costs(method, given.map(lambda z: z, teacher=lambda z: z / 5 - 2)), found, rel=1e-5)


LABELLED = [case for case, (name, _) in CASES.items() if KINDS[name].needs_labels]


@pytest.mark.parametrize("case", LABELLED)
def test_images_without_a_label_are_left_out(case):
    method, given = made(case)
    method.eval()
    some = Pair(given.student, given.teacher, batch_of(4, given.batch.target.where(torch.arange(4) % 2 == 0, -1)))
    same(costs(method, some), costs(method, given.rows([0, 2])), rel=1e-6)
    none = Pair(given.student, given.teacher, batch_of(4, torch.full((4,), -100)))
    assert not any(costs(method, none).values())


@pytest.mark.parametrize("case", [*LABELLED, "ca_mkd"])
@pytest.mark.parametrize("target", [torch.rand(4), torch.zeros(3, dtype=torch.int64), {"boxes": torch.rand(4)}, None])
def test_labels_that_are_no_classes_are_refused(case, target):
    method, given = made(case)
    with pytest.raises(LabelsNotClasses):
        terms_of(method, Pair(given.student, given.teacher, batch_of(4, target)))


@pytest.mark.parametrize("name", [name for name in NAMES if KINDS[name].output_kinds == ("boxes",)])
def test_a_method_of_boxes_teaches_detectors_alone(name):
    kind = KINDS[name]
    assert kind.supports("boxes") and not any(kind.supports(other) for other in ("classes", "pixels", "vector"))

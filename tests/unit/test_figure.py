"""Figures say what applies and nothing else; intervals are Wilson's."""

from __future__ import annotations

import json

import pytest

from stillroom.metrics.measurement import Measurement, proportion, wilson


def test_what_does_not_apply_is_left_out() -> None:
    assert Measurement(value=3.5, how="counted").as_dict() == {"value": 3.5, "how": "counted"}


def test_what_applies_is_there_and_json_takes_it() -> None:
    figure = Measurement(value=0.9, ci95=(0.8, 0.95), n=100, how="counted", extra={"spread": 0.02})
    assert json.loads(json.dumps(figure.as_dict())) == {
        "value": 0.9,
        "ci95": [0.8, 0.95],
        "n": 100,
        "how": "counted",
        "spread": 0.02,
    }


def test_zero_and_false_apply() -> None:
    assert Measurement(value=0.0, how="x", n=0).as_dict() == {"value": 0.0, "n": 0, "how": "x"}
    assert Measurement(value=False, how="x").as_dict()["value"] is False


def test_wilson_by_hand() -> None:
    # 8 of 10: centre (0.8 + 3.8415/20) / 1.38415 = 0.71674, half 1.95996 / 1.38415 * sqrt(0.016 + 0.0096036) = 0.22658
    assert wilson(8, 10) == pytest.approx((0.49016, 0.94332), abs=5e-6)


def test_all_right_is_not_certain() -> None:
    low, high = wilson(10, 10)
    assert low == pytest.approx(10 / (10 + 1.959963984540054**2))
    assert high == 1.0


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_counts_are_refused(hits: int, n: int) -> None:
    with pytest.raises(ValueError, match="no share"):
        wilson(hits, n)


def test_a_proportion_names_its_interval() -> None:
    figure = proportion(3, 4, how="share of images")
    assert (figure.value, figure.n, figure.ci95) == (0.75, 4, wilson(3, 4))
    assert figure.how == "share of images; 95 % Wilson interval"

"""The Performance-Cost Ratio and the Pareto front, on numbers that can be worked out on paper."""

from __future__ import annotations

import copy
import math

import pytest

from stillroom.benchmark import tradeoff


def row(quality, latency, size, **more):
    return {"accuracy": {"value": quality}, "latency_ms": {"value": latency}, "bytes": {"value": size}} | more


def energy(joules, source="measured"):
    return {"energy_j": {"value": joules, "source": source}}


METRICS = {
    "teacher": row(0.96, 8.0, 1000),
    "baseline": row(0.99, 1.0, 1),
    "student": row(0.90, 2.0, 500),
    "stages": [{"stage": "distilled", "what": "before"} | row(0.92, 4.0, 800)],
    "exports": [
        {"target": "onnx", "bits": 32, "verified": True} | row(0.90, 1.0, 500),
        {"target": "onnx", "bits": 8, "verified": True} | row(0.88, 0.5, 125),
    ],
}


def test_the_ratio_is_what_its_formula_says():
    assert tradeoff.ratio(0.9, 2.0, 100) == pytest.approx(0.9 * 500 / 100)
    assert tradeoff.ratio(0.9, 2.0, 100, a=2) == pytest.approx(0.81 * 500 / 100)
    assert tradeoff.ratio(0.9, 2.0, 100, b=0.5) == pytest.approx(0.9 * math.sqrt(500) / 100)
    assert tradeoff.ratio(0.0, 2.0, 100) == 0
    assert tradeoff.relative(9.0, 4.5) == 2


@pytest.mark.parametrize(
    "values", [(-0.1, 1, 1), (0.5, 0, 1), (0.5, 1, 0), (0.5, -1, 1), (math.nan, 1, 1), (0.5, math.inf, 1)]
)
def test_what_has_no_ratio_is_refused(values):
    with pytest.raises(ValueError, match="no ratio"):
        tradeoff.ratio(*values)


def test_nothing_is_a_multiple_of_nothing():
    for reference in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="multiple"):
            tradeoff.relative(1.0, reference)


def test_the_front_of_a_few_points():
    points = [(0.9, 5.0), (0.8, 1.0), (0.8, 2.0), (0.95, 9.0), (0.9, 5.0), (0.99, None), (math.nan, 0.1)]
    assert tradeoff.front(points, ("more", "less")) == [0, 1, 3, 4]
    assert tradeoff.front([], ("more",)) == []
    assert tradeoff.front([(1.0,), (2.0,)], ("less",)) == [0]


def test_every_row_gets_its_ratio_and_its_place():
    before = copy.deepcopy(METRICS)
    found = tradeoff.attach(METRICS, "accuracy")
    assert before == METRICS, "it was a copy that was changed"
    assert found["teacher"]["pcr"]["value"] == 1
    student = (0.90 / 0.002 / 500) / (0.96 / 0.008 / 1000)
    assert found["student"]["pcr"]["value"] == pytest.approx(student)
    assert found["student"]["pcr"]["cost"] == "bytes" and "C bytes of its file" in found["student"]["pcr"]["how"]
    rows = [found["teacher"], found["stages"][0], found["student"], *found["exports"]]
    assert [one["front"] for one in rows] == [True, True, False, True, True]  # the float file is as the student, faster
    assert not {"pcr", "front"} & found["baseline"].keys()


def test_no_claim_rests_on_unstable_times_or_unverified_files():
    metrics = copy.deepcopy(METRICS)
    metrics["exports"][0]["latency_ms"]["stable"] = False
    metrics["exports"][1]["verified"] = False
    found = tradeoff.attach(metrics, "accuracy")
    for export in found["exports"]:
        assert export["front"] is False and "pcr" not in export
    assert found["student"]["front"] is True, "what is left out beats nobody"
    metrics["teacher"]["latency_ms"]["stable"] = False
    found = tradeoff.attach(metrics, "accuracy")
    assert not any("pcr" in one for one in (found["teacher"], found["student"], *found["stages"]))


def test_energy_is_the_cost_where_both_have_one_of_the_same_source():
    metrics = copy.deepcopy(METRICS)
    metrics["teacher"] |= energy(0.4)
    metrics["student"] |= energy(0.1)
    metrics["exports"][0] |= energy(0.1, "estimated")
    found = tradeoff.attach(metrics, "accuracy")
    costs = [one["pcr"]["cost"] for one in (found["teacher"], found["student"], *found["exports"])]
    assert costs == ["energy", "energy", "bytes", "bytes"]
    assert found["teacher"]["pcr"]["value"] == 1
    assert found["student"]["pcr"]["value"] == pytest.approx((0.90 / 0.002 / 0.1) / (0.96 / 0.008 / 0.4))
    assert "measured energy" in found["student"]["pcr"]["how"]
    size = (0.90 / 0.001 / 500) / (0.96 / 0.008 / 1000)
    assert found["exports"][0]["pcr"]["value"] == pytest.approx(size), "both by bytes, the teacher too"


def test_energy_makes_the_front_only_where_all_have_it():
    metrics = copy.deepcopy(METRICS)
    for place, one in enumerate((metrics["teacher"], *metrics["stages"], *metrics["exports"])):
        one |= energy(0.5 - 0.01 * place)
    metrics["student"] |= energy(0.001, "estimated")
    assert tradeoff.attach(metrics, "accuracy")["student"]["front"] is False
    metrics["student"] |= energy(0.001)
    assert tradeoff.attach(metrics, "accuracy")["student"]["front"] is True


def test_without_the_teachers_figure_there_is_no_reference():
    metrics = copy.deepcopy(METRICS)
    del metrics["teacher"]["accuracy"]
    found = tradeoff.attach(metrics, "accuracy")
    assert found["teacher"]["front"] is False and found["exports"][1]["front"] is True
    assert not any("pcr" in one for one in (found["teacher"], found["student"], *found["exports"]))
    assert tradeoff.attach({"seeds": [0]}, "accuracy") == {"seeds": [0]}


def test_a_second_time_leaves_nothing_of_the_first():
    found = tradeoff.attach(METRICS, "accuracy")
    assert tradeoff.attach(found, "accuracy") == found
    found["student"]["latency_ms"]["stable"] = False
    assert "pcr" not in tradeoff.attach(found, "accuracy")["student"]


def test_the_verdict_on_the_target_stays():
    target = {"limits": {"latency_ms": 0.1}, "found": {"latency_ms": {"value": 0.5}}, "met": False}
    assert tradeoff.attach(METRICS | {"target": target}, "accuracy")["target"] == target

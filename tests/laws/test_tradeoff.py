"""What must hold of the Performance-Cost Ratio and of the Pareto front, whatever the numbers are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.benchmark import tradeoff
from stillroom.report import deployment

positive = st.floats(1e-3, 1e3)
shares = st.floats(0.01, 1.0)
networks = st.lists(st.tuples(shares, positive, positive), min_size=2, max_size=8)
weights = st.sampled_from([0.5, 1.0, 2.0])
values = st.integers(0, 4).map(float)  # few, so that ties and equal points are common
points = st.lists(st.tuples(values, values, values), min_size=1, max_size=12)
BETTER = ("more", "less", "less")


@given(shares, positive, positive, weights, weights)
def test_doubling_the_cost_halves_the_ratio(quality, latency, cost, a, b):
    once = tradeoff.ratio(quality, latency, cost, a=a, b=b)
    assert tradeoff.ratio(quality, latency, 2 * cost, a=a, b=b) == pytest.approx(once / 2)


@given(networks, weights, weights, st.sampled_from([1e-3, 1024.0, 3600.0]))
def test_the_ranking_knows_no_unit(found, a, b, unit):
    """Joules or watt-seconds, bytes or kilobytes: as multiples of the first network's the ratios stay as they are."""

    def ratios(scale):
        each = [tradeoff.ratio(quality, latency, scale * cost, a=a, b=b) for quality, latency, cost in found]
        return [tradeoff.relative(one, each[0]) for one in each]

    assert ratios(unit) == pytest.approx(ratios(1.0), rel=1e-9)


def metrics(found):
    rows = [
        {"accuracy": {"value": quality}, "latency_ms": {"value": latency}, "bytes": {"value": cost}}
        for quality, latency, cost in found
    ]
    return {"teacher": rows[0], "student": rows[1], "exports": [{"verified": True} | row for row in rows[2:]]}


@given(networks)
def test_the_teachers_own_ratio_is_one(found):
    said = tradeoff.attach(metrics(found), "accuracy")
    assert said["teacher"]["pcr"]["value"] == 1
    assert any(row["front"] for row in (said["teacher"], said["student"], *said["exports"]))


@given(networks, st.floats(1e-3, 1e3), st.booleans())
def test_a_miss_is_never_hidden(found, limit, claimed):
    """However good its ratio, and whatever else was written: above a limit the verdict is a miss."""
    said = metrics(found)
    target = {"limits": {"latency_ms": limit}, "found": {"latency_ms": said["student"]["latency_ms"]}, "met": claimed}
    kept = tradeoff.attach(said | {"target": target}, "accuracy")["target"]
    over = said["student"]["latency_ms"]["value"] > limit
    assert (deployment.status(kept) == "MISSED") == (over or not claimed)
    assert ("MISSED" in deployment.verdict(kept)) == (over or not claimed)


def beats(one, other):
    ways = [1 if way == "more" else -1 for way in BETTER]
    gaps = [way * (a - b) for way, a, b in zip(ways, one, other, strict=True)]
    return all(gap >= 0 for gap in gaps) and any(gap > 0 for gap in gaps)


@given(points)
def test_the_front_is_who_nobody_beats(found):
    kept = tradeoff.front(found, BETTER)
    assert kept == sorted(set(kept)) and kept
    members = [found[place] for place in kept]
    for one in members:
        assert not any(beats(other, one) for other in members)
    for place, one in enumerate(found):
        if place not in kept:
            assert any(beats(member, one) for member in members)


@given(points, st.data())
def test_who_lacks_a_value_changes_nothing(found, data):
    lacking = data.draw(st.lists(st.tuples(values, st.none(), values), min_size=1, max_size=4))
    assert tradeoff.front([*found, *lacking], BETTER) == tradeoff.front(found, BETTER)
    turned = tradeoff.front([*lacking, *found], BETTER)
    assert [place - len(lacking) for place in turned] == tradeoff.front(found, BETTER)

"""What a network gives for what it costs: one number of it, and the networks that no other beats.

Q  quality, the headline figure, in 0..1        R  responsiveness, 1 / latency in seconds
C  cost of one image: joules, or the bytes that have to be kept to answer it

One number hides what it is made of: a network that misses a limit may have the best of all. It is shown beside the
verdict on the device's limits, and the front.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

Better = Literal["more", "less"]
Row = Mapping[str, Any]


def ratio(quality: float, latency_ms: float, cost: float, *, a: float = 1.0, b: float = 1.0) -> float:
    """The Performance-Cost Ratio Q^a R^b / C; 0 where nothing is right, without an upper bound.

    Doubling the cost halves it, at any a and b. Its unit is that of the cost, so that only quotients of two ratios mean
    something, see `relative`.
    Source: Jang & Morabito 2025, https://arxiv.org/abs/2505.16508, who build it from quality, responsiveness and cost
    per response. The equation is our own reading of their words: they leave the weighting to the user; here a and b
    are 1 by default.

    Args:
        quality: Q, 0 or more.
        latency_ms: above 0, for one image.
        cost: C, above 0.
        a: weight of the quality.
        b: weight of the responsiveness.

    Raises:
        ValueError: an argument is out of its range, or not finite.
    """
    if not all(map(math.isfinite, (quality, latency_ms, cost))) or quality < 0 or latency_ms <= 0 or cost <= 0:
        raise ValueError(f"no ratio of quality {quality}, latency {latency_ms} ms and cost {cost}")
    return float(quality**a * (1000 / latency_ms) ** b / cost)


def relative(found: float, reference: float) -> float:
    """A ratio as a multiple of another of the same kind of cost: no unit is left, and the reference's own is 1.

    Raises:
        ValueError: the reference is not above 0.
    """
    if not reference > 0:
        raise ValueError(f"nothing is a multiple of {reference}")
    return found / reference


def front(points: Sequence[Sequence[float | None]], better: Sequence[Better]) -> list[int]:
    """The Pareto front: places of the points that no other point dominates, in the order of `points`.

    One point dominates another where it is nowhere worse and somewhere better. Equal points don't dominate each other:
    either all of them are on the front or none. A point with a missing value is left out, and dominates none.

    Args:
        points: D values each.
        better: for each of the D values whether "more" or "less" of it is better.
    """
    signs = [1.0 if way == "more" else -1.0 for way in better]
    whole = {
        place: [sign * value for sign, value in zip(signs, point, strict=True) if value is not None]
        for place, point in enumerate(points)
        if all(value is not None and not math.isnan(value) for value in point)
    }
    return [place for place, own in whole.items() if not any(_dominates(other, own) for other in whole.values())]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)


def attach(metrics: Row, headline: str) -> dict[str, Any]:
    """A copy of `metrics.json` in which teacher, stages, student and files have `pcr` and `front`.

    `pcr` is a figure: the ratio as a multiple of the teacher's, its `cost` ("energy" where the row and the teacher have
    one of the same source, else "bytes") and, in `how`, the formula. A row without a comparable teacher has none.
    `front` is true on the Pareto front of quality, latency, bytes and, where all have one of the same source, energy.

    A row whose latency is unstable (SR-B901) and a file that failed its check get no `pcr` and are not on the front:
    no claim may rest on them.

    Args:
        metrics: `metrics.json`, read; it stays as it is, and so does its `target`.
        headline: name of the figure that leads.
    """
    found: dict[str, Any] = copy.deepcopy(dict(metrics))
    rows = list(_rows(found))
    sound = [row for row in rows if _sound(row)]
    energy = len({_source(row) for row in sound}) == 1 and all(_value(row, "energy_j") is not None for row in sound)
    costs = ("latency_ms", "bytes", *(("energy_j",) if energy else ()))
    points = [[_value(row, headline), *(_value(row, name) for name in costs)] for row in sound]
    less: list[Better] = ["less"] * len(costs)
    kept = front(points, ["more", *less])
    best = {id(sound[place]) for place in kept}
    teacher = found.get("teacher")
    for row in rows:
        row["front"] = id(row) in best
        row.pop("pcr", None)  # of an earlier time, when other files were there
        pcr = _pcr(row, teacher, headline) if isinstance(teacher, dict) else None
        row |= {"pcr": pcr} if pcr else {}
    return found


def _rows(metrics: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those that may be deployed. The baseline is there for comparison only."""
    for role in ("teacher", "student"):
        if isinstance(metrics.get(role), dict):
            yield metrics[role]
    for part in ("stages", "exports"):
        yield from metrics.get(part) or ()


def _pcr(row: Row, teacher: Row, headline: str) -> dict[str, Any] | None:
    same = _source(row) == _source(teacher)
    energy = same and _value(row, "energy_j") is not None and _value(teacher, "energy_j") is not None
    name, cost = ("energy_j", "energy") if energy else ("bytes", "bytes")
    own, reference = (_ratio(one, headline, name) for one in (row, teacher))
    if own is None or not reference:
        return None
    what = f"{_source(row)} energy for one image in joules" if energy else "bytes of its file"
    how = (
        f"Q^a R^b / C with a = b = 1, as a multiple of the teacher's: Q {headline.replace('_', ' ')}, "
        f"R 1 / latency in seconds, C {what}; the weighting is our reading of arXiv 2505.16508"
    )
    return {"value": relative(own, reference), "cost": cost, "how": how}


def _ratio(row: Row, headline: str, cost: str) -> float | None:
    values = [_value(row, name) for name in (headline, "latency_ms", cost)]
    if not _sound(row) or any(value is None for value in values):
        return None
    quality, latency, spent = (value for value in values if value is not None)
    return ratio(quality, latency, spent) if quality >= 0 and latency > 0 and spent > 0 else None


def _sound(row: Row) -> bool:
    latency = row.get("latency_ms")
    return row.get("verified") is not False and not (isinstance(latency, Mapping) and latency.get("stable") is False)


def _source(row: Row) -> str | None:
    """How its energy came about; None where nothing measured or estimated it."""
    found = row.get("energy_j")
    return str(found.get("source", "measured")) if isinstance(found, Mapping) else None


def _value(row: Row, name: str) -> float | None:
    found = row.get(name)
    value = found.get("value") if isinstance(found, Mapping) else found
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)

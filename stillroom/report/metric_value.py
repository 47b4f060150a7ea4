"""One metric of `metrics.json` as a value; what is malformed in it is left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stillroom.report.format import number


@dataclass(frozen=True)
class MetricValue:
    """One metric of `metrics.json`: `value` is a finite float, a dict (recall by class), or None.

    `max_difference`: of an agreement, the largest difference of two outputs. `source`: of an energy, "measured" or
    "estimated". `cost`: of a Performance-Cost Ratio, "energy" or "bytes". `p`, `test`: of the gain over the baseline;
    `better`, `worse`: on how many images one of both is correct and the other is not.
    """

    value: Any
    ci95: tuple[float, float] | None = None
    n: int | None = None
    how: str = ""
    stable: bool = True
    max_difference: float | None = None
    source: str = ""
    cost: str = ""
    p: float | None = None
    better: int | None = None
    worse: int | None = None
    test: str = ""


def metric_value(record: Any) -> MetricValue | None:
    """A metric as written, an object or a bare number; None if it is empty."""
    if not isinstance(record, dict):
        value = number(record)
        return None if value is None else MetricValue(value)
    value = record.get("value")
    if not isinstance(value, dict):
        value = number(value)
    if value is None and not record.get("how"):
        return None
    stable = record.get("stable", True) is not False
    how, difference = str(record.get("how") or ""), number(record.get("max_difference"))
    return MetricValue(
        value,
        _interval(record.get("ci95")),
        integer(record.get("n")),
        how,
        stable,
        difference,
        source=str(record.get("source") or ""),
        cost=str(record.get("cost") or ""),
        p=number(record.get("p")),
        better=integer(record.get("better")),
        worse=integer(record.get("worse")),
        test=str(record.get("test") or ""),
    )


def integer(value: Any) -> int | None:
    """The whole part of a finite number, or None."""
    finite = number(value)
    return None if finite is None else int(finite)


def _interval(ends: Any) -> tuple[float, float] | None:
    if not isinstance(ends, list) or len(ends) != 2:
        return None
    low, high = number(ends[0]), number(ends[1])
    return None if low is None or high is None else (low, high)

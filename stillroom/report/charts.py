"""The charts of a report as inline SVG. Pure functions: values in, markup out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from markupsafe import Markup

from stillroom.report import svg
from stillroom.report.format import interval, percent, plain
from stillroom.report.history import Curve

WIDTH = 440.0
ROW = 27.0  # of a class
ROLES_WITH_MARKER = ("teacher", "baseline", "student", "file")


@dataclass(frozen=True)
class Chart:
    """A drawing with its title and a line of explanation."""

    title: str
    drawing: Markup
    note: str = ""


@dataclass(frozen=True)
class Point:
    """One model in a chart: its headline metric with its interval, and its cost."""

    role: str
    label: str
    value: float
    ci95: tuple[float, float] | None = None
    cost: float = 0.0

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of the interval; the value itself if there is none."""
        return self.ci95 or (self.value, self.value)

    @property
    def text(self) -> str:
        """Label, value and interval."""
        return f"{self.label}: {percent(self.value)}" + (f" ({interval(self.ci95)})" if self.ci95 else "")


def lines(
    curves: Sequence[Curve], *, title: str, shares: bool = False, log: bool = True, height: float = 210.0
) -> Markup:
    """Curves over steps, the range of a bucket as a band behind its mean.

    Args:
        curves: at least one, each with at least one bucket.
        title: what the values are, for screen readers.
        shares: values are shares in 0..1: percent, an axis from `floor` on, and the last value as a label.
        log: the axis may be logarithmic, and is if means are positive and span a factor of 30.
        height: of the drawing, in its own units.
    """
    buckets = [bucket for curve in curves for bucket in curve.buckets]
    means = [bucket.mean for bucket in buckets]
    log = log and not shares and min(means) > 0 and max(means) > 30 * min(means)
    low = floor(curves) if shares else min(means) if log else min(0.0, *means)
    y = _vertical(low, max(means), log, height)
    x = svg.Scale(0.0, max(1.0, *(bucket.step for bucket in buckets)), 52, WIDTH - (64 if shares else 14))
    tick = partial(percent, digits=digits(y)) if shares else plain
    # An inner <svg> clips: early values below the floor are cut off at the bottom instead of compressing the rest.
    inner = svg.element(
        "svg",
        *[_band(curve, x, y) for curve in curves],
        *[_curve(curve, x, y) for curve in curves],
        x=46,
        y=4,
        width=x.end - 40,
        height=y.start - 2,
        viewBox=f"46 4 {x.end - 40:g} {y.start - 2:g}",
    )
    parts = [svg.axis_y(y, 52, x.end, tick, 4), svg.axis_x(x, y.end, y.start), inner]
    label = percent if shares else plain
    if shares:
        parts.append(_last_values(curves, x, y, label))
    note = f"{title}, by step" + ("; logarithmic scale" if log else "")
    return svg.drawing(WIDTH, height, note, *parts, class_="lines", data_hover=_hover_data(curves, x, y, label))


def floor(curves: Sequence[Curve]) -> float:
    """Where an axis of shares starts: low enough for nine tenths of all values."""
    means = sorted(bucket.mean for curve in curves for bucket in curve.buckets)
    low, high = means[len(means) // 10], means[-1]
    return max(0.0, min(low, *(curve.buckets[-1].mean for curve in curves), high) - 0.06 * (high - low or 0.1))


def _vertical(low: float, high: float, log: bool, height: float) -> svg.Scale:
    if log:
        return svg.Scale(low, high, height - 26, 10, log)
    return svg.Scale(low, high + 0.06 * (high - low or abs(high) or 1.0), height - 26, 10)


def _band(curve: Curve, x: svg.Scale, y: svg.Scale) -> Markup:
    if len(curve.buckets) < 2 or all(bucket.high == bucket.low for bucket in curve.buckets):
        return Markup("")

    def place(step: float, value: float) -> str:
        return f"{x(step)},{y(min(max(value, y.low), y.high))}"

    there = [place(bucket.step, bucket.high) for bucket in curve.buckets]
    back = [place(bucket.step, bucket.low) for bucket in reversed(curve.buckets)]
    return svg.element("polygon", points=" ".join(there + back), class_=f"band {role(curve.stage)}")


def _curve(curve: Curve, x: svg.Scale, y: svg.Scale) -> Markup:
    if len(curve.buckets) == 1:
        return svg.mark(role(curve.stage), x(curve.buckets[0].step), y(curve.buckets[0].mean), curve.stage)
    path = " ".join(f"{x(bucket.step)},{y(bucket.mean)}" for bucket in curve.buckets)
    return svg.element("polyline", points=path, class_=f"curve {role(curve.stage)}")


def _last_values(curves: Sequence[Curve], x: svg.Scale, y: svg.Scale, label: Callable[[float], str]) -> Markup:
    ends = [curve.buckets[-1] for curve in curves]
    places = svg.place_apart([y(end.mean) for end in ends], 13, 12, y.start)
    parts = []
    for curve, end, place in zip(curves, ends, places, strict=True):
        parts.append(svg.mark(role(curve.stage), x(end.step), y(end.mean), f"{curve.stage} at the end", 3.6))
        parts.append(svg.text(x.end + 9, place, label(end.mean), style=f"label strong {role(curve.stage)}"))
    return Markup("").join(parts)


def _hover_data(curves: Sequence[Curve], x: svg.Scale, y: svg.Scale, label: Callable[[float], str]) -> str:
    """The values that the script shows under the pointer: position, step and text of each bucket of each curve."""
    return json.dumps(
        [
            {
                "role": role(curve.stage),
                "name": curve.stage,
                "at": [[x(b.step), min(y(b.mean), y.start), f"{b.step:.0f}", label(b.mean)] for b in curve.buckets],
            }
            for curve in curves
        ],
        separators=(",", ":"),
        ensure_ascii=False,
    )


def intervals(points: Sequence[Point], *, title: str) -> Markup:
    """The headline metric of each model with its 95 % interval, a row each. The axis need not start at 0."""
    height = 30.0 + 30 * len(points)
    low = min(point.ends[0] for point in points)
    high = max(point.ends[1] for point in points)
    pad = 0.08 * (high - low) or 0.02
    x = svg.Scale(max(0.0, low - pad), min(1.0, high + pad), 104, WIDTH - 62)
    parts = [svg.axis_x(x, 6, height - 24, partial(percent, digits=digits(x)), 4)]
    for row, point in enumerate(points):
        y = 21.0 + 30 * row
        parts.append(svg.text(94, y, shorten(point.label, 15), anchor="end", style=f"label strong {point.role}"))
        if point.ci95:
            parts.append(svg.line(x(point.ci95[0]), y, x(point.ci95[1]), y, f"whisker {point.role}"))
        parts.append(svg.mark(point.role, x(point.value), y, point.text))
        parts.append(svg.text(WIDTH, y, percent(point.value), anchor="end", style="label strong number"))
    description = f"{title} with 95 % intervals. " + "; ".join(point.text for point in points)
    return svg.drawing(WIDTH, height, description, *parts)


def by_class(rows: Sequence[tuple[str, dict[str, float]]], *, title: str, low: float) -> Markup:
    """A metric by class, a row each with a marker for each of teacher, baseline and student.

    Args:
        rows: (class name, role -> value).
        title: what the values are, for screen readers.
        low: the smallest value of this chart and of those beside it, so that all have the same axis.
    """
    height = 26.0 + ROW * len(rows)
    x = svg.Scale(0.0 if low < 0.3 else max(0.0, low - 0.05), 1.0, 112, WIDTH - 14)
    parts = [svg.axis_x(x, 4, height - 20, partial(percent, digits=digits(x)), 4)]
    lanes = [key for key in ROLES_WITH_MARKER if any(key in found for _, found in rows)]
    for place, (name, found) in enumerate(rows):
        y = 6.0 + ROW * (place + 0.5)
        parts.append(svg.text(102, y, shorten(name, 16), anchor="end"))
        if place:
            parts.append(svg.line(112, y - ROW / 2, WIDTH - 14, y - ROW / 2, "grid"))
        for lane, key in enumerate(lanes):  # lanes, because equal values would hide each other
            if key in found:
                at = y + 6.5 * (lane - (len(lanes) - 1) / 2)
                parts.append(svg.mark(key, x(found[key]), at, f"{name}, {key}: {percent(found[key])}", 3.4))
    description = f"{title}. " + "; ".join(
        f"{name}: " + ", ".join(f"{key} {percent(value)}" for key, value in found.items()) for name, found in rows
    )
    return svg.drawing(WIDTH, height, description, *parts)


def role(stage: str) -> str:
    """The role of a stage, which sets colour and marker; "other" if it has none."""
    return stage if stage in ROLES_WITH_MARKER else "other"


def digits(scale: svg.Scale) -> int:
    """Decimals of percentages on an axis: as many as distinguish its ticks."""
    return 0 if scale.high - scale.low >= 0.035 else 1


def shorten(name: str, length: int) -> str:
    """A name of at most `length` characters."""
    return name if len(name) <= length else name[: length - 1] + "…"

"""Quality over cost of each network and file, with the Pareto front and the deployment limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from markupsafe import Markup

from stillroom.benchmark import tradeoff
from stillroom.report import deployment, svg
from stillroom.report.charts import WIDTH, Chart, Point, digits, shorten
from stillroom.report.format import count, milliseconds, percent, plain, size
from stillroom.report.run_data import ModelResult, RunData

HEIGHT = 262.0
LINE = 15.0  # height of a name
LABEL_COLUMN = 142.0  # width of names beside the drawing


@dataclass(frozen=True)
class Axis:
    """A cost to draw.

    Attributes:
        metric: its name in `metrics.json`.
        name: in a sentence.
        title: below the axis.
        format: a value as text, without its unit if `unit` holds it.
        tick: a value on the axis.
        unit: follows a value.
    """

    metric: str
    name: str
    title: str
    format: Callable[[float], str]
    tick: Callable[[float], str]
    unit: str


LATENCY = Axis("latency_ms", "latency", "ms for one image, median", milliseconds, plain, " ms for one image, median")
MACS = Axis("macs", "MACs", "MACs for one image", count, count, " MACs for one image")
SIZE = Axis("bytes", "size", "size of the file", size, size, "")


def pareto_charts(run: RunData) -> list[Chart]:
    """Quality over latency and over size; none for a run without a Pareto front."""
    title = run.task.title
    drawn = []
    for axis in (LATENCY, SIZE):
        shown = [m for m in run.models if run.headline(m) is not None and m.value(axis.metric) is not None]
        if len(shown) < 2 or all(model.front is None for model in shown):
            return []
        points = [point(run, model, axis.metric, "" if is_reliable(model) else "~ ") for model in shown]
        limit = deployment.chart_limit(run, axis.metric)
        note = f"The line joins the models that no other beats in both {run.task.metric_name} and {axis.name}"
        note += "; dashed: the deployment limit" if limit else ""
        note += "; logarithmic in cost." if needs_log_axis(points, limit) else "."
        drawing = scatter(points, axis, title=title, front=_front(shown, points), limit=limit, label_column=True)
        drawn.append(Chart(f"{title} against {axis.name}", drawing, note))
    return drawn


def point(run: RunData, model: ModelResult, cost: str = "", flag: str = "") -> Point:
    """A model in a chart, at its headline metric and the cost of that name."""
    value, cost_value = run.headline(model), model.value(cost) if cost else 0.0
    return Point(model.role, flag + model.label, value or 0.0, model.interval(run.task.headline), cost_value or 0.0)


def is_reliable(model: ModelResult) -> bool:
    """Whether its times are stable and, if it is a file, it was verified."""
    latency = model.metrics.get("latency_ms")
    return model.verified is not False and (latency is None or latency.stable)


def _front(models: Sequence[ModelResult], points: Sequence[Point]) -> list[Point]:
    """The front of these two values alone, cheapest first; models excluded from the whole front are excluded here."""
    pairs = zip(points, models, strict=True)
    eligible = [point for point, model in pairs if model.front is not None and is_reliable(model)]
    best = tradeoff.front([(one.value, one.cost) for one in eligible], ("more", "less"))
    return sorted((eligible[index] for index in best), key=lambda one: one.cost)


def scatter(
    points: Sequence[Point],
    axis: Axis,
    *,
    title: str,
    front: Sequence[Point] = (),
    limit: float | None = None,
    label_column: bool = False,
) -> Markup:
    """The headline metric over its cost; upper left is best. The axis is logarithmic if costs differ by a factor of 5.

    Args:
        points: at least one.
        axis: the cost.
        title: of the values, for screen readers.
        front: points joined by a step line, cheapest first.
        limit: of the cost, drawn as a dashed line.
        label_column: names are in a column on the right with a line to each marker, for many points.
    """
    height, right = max(HEIGHT, 80 + LINE * len(points)), WIDTH - (LABEL_COLUMN if label_column else 14)
    x, y = _scales(points, limit, right, height)
    parts = [
        svg.axis_y(y, 52, right, partial(percent, digits=digits(y)), 4),
        svg.axis_x(x, 10, height - 40, axis.tick, 4),
        svg.text(int(40 + right) // 2, height - 8, axis.title, anchor="middle"),
    ]
    parts += [_step_line(front, x, y)] if front else []
    parts += [_limit_line(limit, axis, x, height)] if limit else []
    parts += _labels_in_column(points, x, y, height) if label_column else []
    names = [Markup("")] * len(points) if label_column else _labels_beside(points, x, y, height)
    for point, name in zip(points, names, strict=True):
        at, cost = x(point.cost), f"{axis.format(point.cost)}{axis.unit}"
        parts.append(svg.line(at, y(point.ends[0]), at, y(point.ends[1]), f"whisker {point.role}"))
        parts.append(svg.mark(point.role, at, y(point.value), f"{point.text}, {cost}"))
        parts.append(name)
    description = f"{title} against {axis.title}. "
    description += "; ".join(f"{point.text} at {axis.format(point.cost)}" for point in points)
    description += f". Pareto front: {', '.join(point.label for point in front)}" if front else ""
    description += f". Deployment limit: {axis.format(limit)}{axis.unit}" if limit else ""
    return svg.drawing(WIDTH, height, description, *parts)


def needs_log_axis(points: Sequence[Point], limit: float | None = None) -> bool:
    """Whether costs differ by more than a factor of 5."""
    costs = [*(point.cost for point in points), *([limit] if limit else [])]
    return min(costs) > 0 and max(costs) > 5 * min(costs)


def _scales(points: Sequence[Point], limit: float | None, right: float, height: float) -> tuple[svg.Scale, svg.Scale]:
    costs = [*(point.cost for point in points), *([limit] if limit else [])]
    low, high = min(point.ends[0] for point in points), max(point.ends[1] for point in points)
    log, pad = needs_log_axis(points, limit), 0.08 * (high - low) or 0.02
    first, last = (min(costs) / 1.5, max(costs) * 1.5) if log else (0.0, max(costs) * 1.15 or 1.0)
    x = svg.Scale(first, last, 52, right, log)
    return x, svg.Scale(max(0.0, low - pad), min(1.0, high + pad), height - 40, 10)


def _labels_beside(points: Sequence[Point], x: svg.Scale, y: svg.Scale, height: float) -> list[Markup]:
    """Names next to their markers, moved up or down where they would overlap."""
    places = svg.place_apart([y(point.value) - 11 for point in points], 13, 14, height - 48)
    drawn = []
    for point, place in zip(points, places, strict=True):
        at = x(point.cost)
        side, anchor = (at - 8, "end") if at > WIDTH * 0.62 else (at + 8, "start")
        style = f"label strong halo {point.role}"
        drawn.append(svg.text(side, place, shorten(point.label, 18), anchor=anchor, style=style))
    return drawn


def _labels_in_column(points: Sequence[Point], x: svg.Scale, y: svg.Scale, height: float) -> list[Markup]:
    """Names in a column, in the order of their values, each with a thin line to its marker."""
    ordered = sorted(points, key=lambda point: (-point.value, -point.cost))
    # Equal values are placed slightly apart, so that their names keep this order.
    places = svg.place_apart([y(one.value) + 1e-3 * row for row, one in enumerate(ordered)], LINE, 14, height - 48)
    drawn = []
    for point, place in zip(ordered, places, strict=True):
        drawn.append(svg.line(x(point.cost), y(point.value), x.end + 8, place, "lead"))
        drawn.append(svg.text(x.end + 12, place, shorten(point.label, 18), style=f"label strong {point.role}"))
    return drawn


def _step_line(front: Sequence[Point], x: svg.Scale, y: svg.Scale) -> Markup:
    """The best value at each cost: horizontal until the next better point, then up."""
    places = [f"{x(front[0].cost)},{y(front[0].value)}"]
    for before, after in pairwise(front):
        places += [f"{x(after.cost)},{y(before.value)}", f"{x(after.cost)},{y(after.value)}"]
    places.append(f"{x.end},{y(front[-1].value)}")
    return svg.element("polyline", points=" ".join(places), class_="front")


def _limit_line(limit: float, axis: Axis, x: svg.Scale, height: float) -> Markup:
    at = x(limit)
    side, anchor = (at - 5, "end") if at > WIDTH * 0.5 else (at + 5, "start")
    name = f"limit {axis.format(limit)}{axis.unit.partition(' for')[0]}"
    label = svg.text(side, height - 50, name, anchor=anchor, style="label halo")
    return svg.line(at, 10, at, height - 40, "limit") + label

"""How good each network and file is over what it costs, with those that no other beats and the limits of the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from markupsafe import Markup

from stillroom.benchmark import tradeoff
from stillroom.report import budget, svg
from stillroom.report.charts import WIDTH, Chart, Point, digits, short
from stillroom.report.folder import Folder, Speaker
from stillroom.report.format import count, milliseconds, percent, plain, size

HEIGHT = 262.0
LINE = 15.0  # height of a name
ASIDE = 142.0  # width of names beside the drawing


@dataclass(frozen=True)
class Axis:
    """A cost to draw.

    Attributes:
        figure: its name in `metrics.json`.
        name: in a sentence.
        words: below the axis.
        say: a value in words, without its unit where that has one.
        tick: a value on the axis.
        unit: what stands behind a value.
    """

    figure: str
    name: str
    words: str
    say: Callable[[float], str]
    tick: Callable[[float], str]
    unit: str


LATENCY = Axis("latency_ms", "latency", "ms for one image, median", milliseconds, plain, " ms for one image, median")
MACS = Axis("macs", "MACs", "MACs for one image", count, count, " MACs for one image")
SIZE = Axis("bytes", "size", "size of the file", size, size, "")


def pareto(folder: Folder) -> list[Chart]:
    """Quality over latency and over size; nothing for a run that was not asked who is on the front."""
    title = folder.about.title
    drawn = []
    for axis in (LATENCY, SIZE):
        shown = [one for one in folder.speakers if folder.leads(one) is not None and one.value(axis.figure) is not None]
        if len(shown) < 2 or all(one.front is None for one in shown):
            return []
        points = [point(folder, one, axis.figure, _flagged(one)) for one in shown]
        best = _best(shown, points)
        limit = budget.limit(folder, axis.figure)
        note = f"The line joins those that none beats in both {folder.about.spoken} and {axis.name}"
        note += "; dashed: the target's limit" if limit else ""
        note += "; logarithmic in cost." if far_apart(points, limit) else "."
        drawing = scatter(points, axis, title=title, front=best, limit=limit, aside=True)
        drawn.append(Chart(f"{title} against {axis.name}", drawing, note))
    return drawn


def point(folder: Folder, speaker: Speaker, cost: str = "", flag: str = "") -> Point:
    """A speaker in a chart, at its headline figure and the cost of that name."""
    value, spent = folder.leads(speaker), speaker.value(cost) if cost else 0.0
    ends = speaker.interval(folder.about.headline)
    return Point(speaker.role, flag + speaker.label, value or 0.0, ends, spent or 0.0)


def sound(speaker: Speaker) -> bool:
    """Whether a claim may rest on its figures: its times are stable and, as a file, it was verified."""
    latency = speaker.figures.get("latency_ms")
    return speaker.verified is not False and (latency is None or latency.stable)


def _flagged(speaker: Speaker) -> str:
    return "" if sound(speaker) else "~ "


def _best(speakers: Sequence[Speaker], points: Sequence[Point]) -> list[Point]:
    """The front of these two values alone, the cheapest first; who is left out of the whole front is left out here."""
    asked = [one for one, speaker in zip(points, speakers, strict=True) if speaker.front is not None and sound(speaker)]
    kept = tradeoff.front([(one.value, one.cost) for one in asked], ("more", "less"))
    return sorted((asked[place] for place in kept), key=lambda one: one.cost)


def scatter(
    points: Sequence[Point],
    axis: Axis,
    *,
    title: str,
    front: Sequence[Point] = (),
    limit: float | None = None,
    aside: bool = False,
) -> Markup:
    """The headline figure over its cost; the upper left is best. Costs a factor of 5 apart are logarithmic.

    Args:
        points: at least one.
        axis: which cost it is.
        title: what the values are, for screen readers.
        front: of the points those that a line of steps joins, the cheapest first.
        limit: of the cost, drawn as a dashed line.
        aside: names stand in a column on the right, with a line to each mark, because there are many.
    """
    height, right = max(HEIGHT, 80 + LINE * len(points)), WIDTH - (ASIDE if aside else 14)
    costs, low = [*(point.cost for point in points), *([limit] if limit else [])], min(p.ends[0] for p in points)
    high = max(point.ends[1] for point in points)
    log = far_apart(points, limit)
    near, far = (min(costs) / 1.5, max(costs) * 1.5) if log else (0.0, max(costs) * 1.15 or 1.0)
    x = svg.Scale(near, far, 52, right, log)
    pad = 0.08 * (high - low) or 0.02
    y = svg.Scale(max(0.0, low - pad), min(1.0, high + pad), height - 40, 10)
    parts = [svg.axis_y(y, 52, right, partial(percent, digits=digits(y)), 4)]
    parts += [
        svg.axis_x(x, 10, height - 40, axis.tick, 4),
        svg.text(int(40 + right) // 2, height - 8, axis.words, anchor="middle"),
    ]
    parts += [_steps(front, x, y)] if front else []
    parts += [_limit(limit, axis, x, height)] if limit else []
    parts += _aside(points, x, y, height) if aside else []
    names = [Markup("")] * len(points) if aside else _beside(points, x, y, height)
    for point, name in zip(points, names, strict=True):
        at = x(point.cost)
        parts.append(svg.line(at, y(point.ends[0]), at, y(point.ends[1]), f"whisker {point.role}"))
        parts.append(svg.mark(point.role, at, y(point.value), f"{point.said}, {axis.say(point.cost)}{axis.unit}"))
        parts.append(name)
    said = f"{title} against {axis.words}. " + "; ".join(f"{p.said} at {axis.say(p.cost)}" for p in points)
    said += f". None beats: {', '.join(point.label for point in front)}" if front else ""
    said += f". Limit of the target: {axis.say(limit)}{axis.unit}" if limit else ""
    return svg.drawing(WIDTH, height, said, *parts)


def _beside(points: Sequence[Point], x: svg.Scale, y: svg.Scale, height: float) -> list[Markup]:
    """Names next to their marks, moved up or down where they would cover each other."""
    places = svg.spread([y(point.value) - 11 for point in points], 13, 14, height - 48)
    drawn = []
    for point, place in zip(points, places, strict=True):
        at = x(point.cost)
        side, anchor = (at - 8, "end") if at > WIDTH * 0.62 else (at + 8, "start")
        style = f"label strong halo {point.role}"
        drawn.append(svg.text(side, place, short(point.label, 18), anchor=anchor, style=style))
    return drawn


def _aside(points: Sequence[Point], x: svg.Scale, y: svg.Scale, height: float) -> list[Markup]:
    """Names in a column, in the order of their values, each with a thin line to its mark."""
    ordered = sorted(points, key=lambda point: (-point.value, -point.cost))
    # Equal values are drawn a hair apart, so that their names keep this order.
    places = svg.spread([y(one.value) + 1e-3 * row for row, one in enumerate(ordered)], LINE, 14, height - 48)
    drawn = []
    for point, place in zip(ordered, places, strict=True):
        drawn.append(svg.line(x(point.cost), y(point.value), x.end + 8, place, "lead"))
        drawn.append(svg.text(x.end + 12, place, short(point.label, 18), style=f"label strong {point.role}"))
    return drawn


def far_apart(points: Sequence[Point], limit: float | None = None) -> bool:
    """Whether costs need a logarithmic axis."""
    costs = [*(point.cost for point in points), *([limit] if limit else [])]
    return min(costs) > 0 and max(costs) > 5 * min(costs)


def _steps(front: Sequence[Point], x: svg.Scale, y: svg.Scale) -> Markup:
    """The best that can be had for each cost: level until the next better one, then up."""
    places = [f"{x(front[0].cost)},{y(front[0].value)}"]
    for before, after in pairwise(front):
        places += [f"{x(after.cost)},{y(before.value)}", f"{x(after.cost)},{y(after.value)}"]
    places.append(f"{x.end},{y(front[-1].value)}")
    return svg.element("polyline", points=" ".join(places), class_="front")


def _limit(limit: float, axis: Axis, x: svg.Scale, height: float) -> Markup:
    at = x(limit)
    side, anchor = (at - 5, "end") if at > WIDTH * 0.5 else (at + 5, "start")
    said = svg.text(
        side, height - 50, f"limit {axis.say(limit)}{axis.unit.partition(' for')[0]}", anchor=anchor, style="label halo"
    )
    return svg.line(at, 10, at, height - 40, "limit") + said

"""Building blocks of charts: scales, ticks, markers and escaped elements. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from stillroom.report.format import plain


@dataclass(frozen=True)
class Scale:
    """Maps values to pixels: `low` to `start`, `high` to `end`; logarithmic if `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of `value`, rounded to a tenth to keep files small."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        part = (at - low) / (high - low) if high > low else 0.5
        return round(self.start + part * (self.end - self.start), 1)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values within the range."""
        return log_ticks(self.low, self.high, count) if self.log else ticks(self.low, self.high, count)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` multiples of 1, 2 or 5 times a power of ten in low..high."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Powers of ten in low..high, with 2 and 5 between them if there is room; round values if none fit."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**power for power in exponents for factor in factors]
        found = [value for value in found if low * 0.999 <= value <= high * 1.001]
        if 2 <= len(found) <= count + 1:
            return found
    if len(found) > count + 1:
        return found[:: math.ceil(len(found) / count)]
    return ticks(low, high, max(2, count - 2))


def place_apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions at least `gap` apart, in the order of `wanted` and as close to it as a pass down and one up allow."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    places = [min(max(wanted[index], low), high) for index in order]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + gap)
    ceiling = high
    for index in reversed(range(len(places))):
        places[index] = min(places[index], ceiling)
        ceiling = places[index] - gap
    found = [0.0] * len(wanted)
    for place, index in zip(places, order, strict=True):
        found[index] = round(place, 1)
    return found


def element(tag: str, *content: Any, **attributes: Any) -> Markup:
    """An element with everything escaped; `_` in names becomes `-`, a trailing one is dropped, None is left out."""
    written = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), value)
        for name, value in attributes.items()
        if value is not None
    )
    name = Markup(tag)
    inner = Markup("").join(escape(part) for part in content)
    return (
        Markup("<{}{}>{}</{}>").format(name, written, inner, name)
        if content
        else Markup("<{}{}/>").format(name, written)
    )


def text(x: float, y: float, content: Any, *, anchor: str = "start", style: str = "label") -> Markup:
    """A line of text whose vertical middle is at `y`."""
    return element("text", content, x=x, y=round(y + 3.8, 1), text_anchor=anchor, class_=style)


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=style)


def mark(role: str, x: float, y: float, title: str = "", size: float = 4.5) -> Markup:
    """The marker of a role, so that colour is never the only difference: square, ring, triangle, disc, diamond."""
    titles = (element("title", title),) if title else ()
    style = f"mark {role}"
    if role == "teacher":
        side = round(1.8 * size, 1)
        place = {"x": round(x - side / 2, 1), "y": round(y - side / 2, 1), "width": side, "height": side}
        return element("rect", *titles, **place, rx=1, class_=style)
    if role == "file":
        reach = round(1.25 * size, 1)
        return element(
            "path", *titles, d=f"M{x} {y - reach}l{reach} {reach}l{-reach} {reach}l{-reach} {-reach}z", class_=style
        )
    if role == "stage":
        reach = round(1.15 * size, 1)
        path = f"M{x} {round(y - reach, 1)}l{reach} {round(1.8 * reach, 1)}h{-2 * reach}z"
        return element("path", *titles, d=path, class_=style)
    return element("circle", *titles, cx=x, cy=y, r=size - 0.8 if role == "baseline" else size, class_=style)


def axis_x(scale: Scale, top: float, bottom: float, label: Any = plain, count: int = 5) -> Markup:
    """Vertical grid lines with their values below."""
    parts = [
        line(scale(value), top, scale(value), bottom, "grid")
        + text(scale(value), bottom + 11, label(value), anchor="middle")
        for value in scale.ticks(count)
    ]
    return Markup("").join(parts)


def axis_y(scale: Scale, left: float, right: float, label: Any = plain, count: int = 5) -> Markup:
    """Horizontal grid lines with their values to the left."""
    parts = [
        line(left, scale(value), right, scale(value), "grid") + text(left - 6, scale(value), label(value), anchor="end")
        for value in scale.ticks(count)
    ]
    return Markup("").join(parts)


def drawing(width: float, height: float, description: str, *parts: Any, **attributes: Any) -> Markup:
    """A whole chart that scales with its column; `description` is for screen readers."""
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=description,
        style=f"max-width:{width * 1.25:g}px",
        **attributes,
    )

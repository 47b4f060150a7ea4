"""Run folder -> `report.html`: one file that opens anywhere, loads nothing, and says where each number comes from."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stillroom.io.files import write_file as write_file
from stillroom.report import budget, charts, costs, folder, format, gallery, history, scatter, svg, table, trail, words
from stillroom.report.charts import Chart
from stillroom.report.folder import ROLES, Folder, Speaker

HERE = Path(__file__).parent
MANY = 40  # classes: above this only the worst are drawn
WORST = 20
NAMES = {"macs": "MACs", "bytes": "size", "latency_ms": "latency, p50", "latency_p95_ms": "latency, p95"}
NAMES |= {"peak_mb": "peak memory", "load_ms": "time to load", "energy_j": "energy", "pcr": "Performance-Cost Ratio"}


def write(folder: Path) -> Path:
    """`report.html` of the run in `folder`, from its files alone. The same files give the same page.

    Raises:
        StillroomError: SR-C460 `folder` is no run folder; SR-C461 one of its files is spoilt; SR-R501 the disk is full.
    """
    return write_file(Path(folder) / "report.html", render(Path(folder)))


def render(path: Path) -> str:
    """The page as text."""
    found, past = folder.read(path), history.read(path)
    script = (HERE / "hover.js").read_text(encoding="utf-8")
    return (
        environment()
        .get_template("page.html")
        .render(
            run=found.run,
            name=str(found.run.get("name") or path.resolve().name),
            folder=found,
            headline=words.headline(found),
            verdict=words.verdict(found),
            state=words.state(found),
            limits=words.limits(found),
            rows=table.rows(found),
            further=table.further(found),
            agreement=table.agreement(found),
            costs=costs.rows(found),
            costs_notes=costs.notes(found),
            overview=_overview(found),
            tradeoff=scatter.pareto(found),
            budget=budget.read(found),
            limit_names=budget.LIMITS,
            candidate_names=budget.CANDIDATES,
            trail=trail.lines(found),
            trail_names=trail.names(found),
            curves=_curves(past, found.about.title),
            lessons=words.lessons(found),
            by_class=_by_class(found),
            gallery=gallery.hang(found),
            probes=len(found.probe.get("images") or []),
            hows=_hows(found),
            digests=folder.digests(found),
            warnings=[str(warning) for warning in found.run.get("warnings") or []],
            skipped=past.skipped,
            stages=list(past.steps),
            # The policy below allows this one script and no other, whatever the folder's texts hold.
            policy=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            script=Markup(script),
            style=style(),
        )
    )


@cache
def environment() -> Environment:
    """Of the templates beside this file; what they print is escaped for HTML."""
    made = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"duration": format.duration, "whole": format.whole, "tie": _tie, "breaks": _breaks}
    made.globals["sign"] = _sign
    return made


def style() -> Markup:
    """How pages look, in light and in dark."""
    return Markup((HERE / "page.css").read_text(encoding="utf-8"))


def _sign(role: str) -> Markup:
    return svg.element("svg", svg.mark(role, 7, 7), viewBox="0 0 14 14", class_="sign", aria_hidden="true")


def _breaks(name: str) -> Markup:
    """A name that may go on in the next line after a slash, a dot or an underscore."""
    return Markup("").join(part + Markup("<wbr>") for part in re.split(r"(?<=[/._])", name))


def _tie(said: str) -> str:
    """Numbers stay on one line with their unit."""
    return said.replace(" %", "\u00a0%").replace("95 %", "95\u00a0%")


def _overview(found: Folder) -> list[Chart]:
    measured = [speaker for speaker in found.speakers if found.leads(speaker) is not None]
    if not measured:
        return []
    title = found.about.title
    dots = charts.intervals([scatter.point(found, speaker) for speaker in measured], title=title)
    drawn = [Chart(title, dots, "Whiskers are 95 % intervals.")]
    if scatter.pareto(found):  # which says it better
        return drawn
    for axis in (scatter.LATENCY, scatter.MACS):
        points = [
            scatter.point(found, speaker, axis.figure) for speaker in measured if speaker.value(axis.figure) is not None
        ]
        if len(points) > 1:
            note = "Upper left is better" + ("; logarithmic in cost." if scatter.far_apart(points) else ".")
            drawing = scatter.scatter(points, axis, title=title)
            return [*drawn, Chart(f"{title} against {axis.name}", drawing, note)]
    return drawn


def _curves(past: history.History, title: str) -> list[Chart]:
    drawn = []
    for name, curves in past.terms.items():
        group = name.split("/", 1)[0]
        weights = [
            f"{stage} {format.plain(weights[group])}"
            for stage, weights in past.weights.items()
            if group in weights and any(curve.stage == stage for curve in curves)
        ]
        note = f"Raw; weight: {', '.join(weights)}." if weights else "Raw, before weights."
        drawn.append(Chart(f"Loss term {name}", charts.lines(curves, title=f"Loss term {name}"), note))
    if past.scores:
        drawing = charts.lines(past.scores, title=f"{title} on validation images", shares=True)
        note = f"The axis starts at {format.percent(charts.floor(past.scores), 0)}."
        drawn.insert(0, Chart(f"{title} on validation images", drawing, note))
    if past.rates:
        drawn.append(Chart("Learning rate", charts.lines(past.rates, title="Learning rate", log=False, height=150)))
    return drawn


def _by_class(found: Folder) -> tuple[list[Chart], str]:
    tables = {role: _table(found.speaker(role), found.about.by_class) for role in ROLES}
    tables = {role: values for role, values in tables.items() if values}
    names = list(dict.fromkeys(name for values in tables.values() for name in values))
    rows = [(name, {role: values[name] for role, values in tables.items() if name in values}) for name in names]
    note = found.about.by_class_note
    if len(rows) > MANY:
        rows = sorted(rows, key=_difference)[:WORST]
        gap = "student falls furthest behind the teacher" if "teacher" in tables else "student does worst"
        note += f" The {WORST} of {len(names)} classes where the {gap}."
    half = len(rows) if len(rows) < 8 else (len(rows) + 1) // 2
    parts: list[Sequence[tuple[str, dict[str, float]]]] = [rows[:half], rows[half:]]
    low = min((value for _, values in rows for value in values.values()), default=0.0)
    title = found.about.by_class_title
    return [Chart("", charts.by_class(part, title=title, low=low)) for part in parts if part], note


def _difference(row: tuple[str, dict[str, float]]) -> float:
    return row[1].get("student", 0.0) - row[1].get("teacher", 0.0)


def _table(speaker: Speaker | None, name: str) -> dict[str, float]:
    figure = speaker.figures.get(name) if speaker else None
    values: dict[str, Any] = figure.value if figure and isinstance(figure.value, dict) else {}
    read = {str(name): format.number(value) for name, value in values.items()}
    return {name: value for name, value in read.items() if value is not None}


def _hows(found: Folder) -> list[tuple[str, str, str]]:
    """(figure, how, whose), one row for figures that several speakers measured in the same way."""
    seen: dict[tuple[str, str], list[str]] = {}
    for speaker in found.speakers:
        for name, figure in speaker.figures.items():
            if figure.how:
                said = found.about.spoken if name == found.about.headline else name.replace("_", " ")
                seen.setdefault((NAMES.get(name, said), figure.how), []).append(speaker.label)
    return [(name, how, ", ".join(whose)) for (name, how), whose in sorted(seen.items())]

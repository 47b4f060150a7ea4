"""Run folder -> `report.html`: one file that loads nothing else, with the source of each value."""

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

from stillroom.io.files import write_file
from stillroom.report import (
    charts,
    compression_stages,
    deployment,
    device_costs,
    format,
    gain,
    gallery,
    history,
    run_data,
    run_files,
    scatter,
    summary,
    svg,
    table,
)
from stillroom.report.charts import Chart
from stillroom.report.run_data import ROLES, ModelResult, RunData

TEMPLATES = Path(__file__).parent
MAX_CLASSES = 40  # with more of them only the worst are drawn
NUM_WORST = 20
METRIC_NAMES = {"macs": "MACs", "bytes": "size", "latency_ms": "latency, p50", "latency_p95_ms": "latency, p95"}
METRIC_NAMES |= {
    "peak_mb": "peak memory",
    "load_ms": "load time",
    "energy_j": "energy",
    "pcr": "Performance-Cost Ratio",
}


def write(folder: Path) -> Path:
    """`report.html` of the run in `folder`, from its files alone. The same files give the same page.

    Raises:
        NotARunFolder, UnreadableRunFile: SR-C460, SR-C461.
        StillroomError: SR-R501, the disk is full.
    """
    return write_file(Path(folder) / "report.html", render(Path(folder)))


def render(path: Path) -> str:
    """The page as text."""
    run, past = run_data.read(path), history.read(path)
    script = (TEMPLATES / "hover.js").read_text(encoding="utf-8")
    return (
        environment()
        .get_template("page.html")
        .render(
            run=run,
            info=run.info,
            name=str(run.info.get("name") or path.resolve().name),
            headline=summary.headline(run),
            verdict=gain.verdict(run),
            state=summary.state(run),
            limitations=summary.limitations(run),
            rows=table.rows(run),
            further=table.further(run),
            agreement=table.agreement(run),
            costs=device_costs.rows(run),
            costs_notes=device_costs.notes(run),
            overview=_overview(run),
            tradeoff=scatter.pareto_charts(run),
            deployment=deployment.read(run),
            limit_columns=deployment.LIMIT_COLUMNS,
            candidate_columns=deployment.CANDIDATE_COLUMNS,
            compression=compression_stages.rows(run),
            compression_columns=compression_stages.columns(run),
            curves=_curves(past, run.task.title),
            methods=summary.methods(run),
            by_class=_by_class(run),
            gallery=gallery.build(run),
            num_samples=len(run.probe.get("images") or []),
            measurements=_measurements(run),
            digests=run_files.digests(run),
            warnings=[str(warning) for warning in run.info.get("warnings") or []],
            skipped=past.skipped,
            stages=list(past.steps),
            # The policy of the page allows this one script and no other, whatever the texts of the folder hold.
            policy=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            script=Markup(script),
            style=style(),
        )
    )


@cache
def environment() -> Environment:
    """The templates beside this file; their output is escaped for HTML."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "duration": format.duration,
        "whole": format.whole,
        "keep_units": _keep_units,
        "breakable": _breakable,
    }
    templates.globals["marker"] = _marker
    return templates


def style() -> Markup:
    """The style sheet of all pages."""
    return Markup((TEMPLATES / "page.css").read_text(encoding="utf-8"))


def _marker(role: str) -> Markup:
    return svg.element("svg", svg.mark(role, 7, 7), viewBox="0 0 14 14", class_="marker", aria_hidden="true")


def _breakable(name: str) -> Markup:
    """A name that may break after a slash, a dot or an underscore."""
    return Markup("").join(part + Markup("<wbr>") for part in re.split(r"(?<=[/._])", name))


def _keep_units(text: str) -> str:
    """Percentages that do not break before their sign."""
    return text.replace(" %", "\u00a0%").replace("95 %", "95\u00a0%")


def _overview(run: RunData) -> list[Chart]:
    measured = [model for model in run.models if run.headline(model) is not None]
    if not measured:
        return []
    title = run.task.title
    dots = charts.intervals([scatter.point(run, model) for model in measured], title=title)
    drawn = [Chart(title, dots, "Whiskers are 95 % intervals.")]
    if scatter.pareto_charts(run):  # which show the costs, too
        return drawn
    for axis in (scatter.LATENCY, scatter.MACS):
        points = [scatter.point(run, model, axis.metric) for model in measured if model.value(axis.metric) is not None]
        if len(points) > 1:
            note = "Upper left is better" + ("; logarithmic in cost." if scatter.needs_log_axis(points) else ".")
            drawing = scatter.scatter(points, axis, title=title)
            return [*drawn, Chart(f"{title} against {axis.name}", drawing, note)]
    return drawn


def _curves(past: history.TrainingHistory, title: str) -> list[Chart]:
    drawn = []
    for name, curves in past.terms.items():
        group = name.split("/", 1)[0]
        weights = [
            f"{stage} {format.plain(weights[group])}"
            for stage, weights in past.weights.items()
            if group in weights and any(curve.stage == stage for curve in curves)
        ]
        note = f"Unweighted; weight: {', '.join(weights)}." if weights else "Unweighted."
        drawn.append(Chart(f"Loss term {name}", charts.lines(curves, title=f"Loss term {name}"), note))
    if past.scores:
        drawing = charts.lines(past.scores, title=f"{title} on validation images", shares=True)
        note = f"The axis starts at {format.percent(charts.floor(past.scores), 0)}."
        drawn.insert(0, Chart(f"{title} on validation images", drawing, note))
    if past.rates:
        drawn.append(Chart("Learning rate", charts.lines(past.rates, title="Learning rate", log=False, height=150)))
    return drawn


def _by_class(run: RunData) -> tuple[list[Chart], str]:
    tables = {role: _class_values(run.model(role), run.task.by_class) for role in ROLES}
    tables = {role: values for role, values in tables.items() if values}
    names = list(dict.fromkeys(name for values in tables.values() for name in values))
    rows = [(name, {role: values[name] for role, values in tables.items() if name in values}) for name in names]
    note = run.task.by_class_note
    if len(rows) > MAX_CLASSES:
        rows = sorted(rows, key=lambda row: row[1].get("student", 0.0) - row[1].get("teacher", 0.0))[:NUM_WORST]
        worst = "is furthest behind the teacher" if "teacher" in tables else "is worst"
        note += f" Shown: the {NUM_WORST} of {len(names)} classes in which the student {worst}."
    half = len(rows) if len(rows) < 8 else (len(rows) + 1) // 2
    parts: list[Sequence[tuple[str, dict[str, float]]]] = [rows[:half], rows[half:]]
    low = min((value for _, values in rows for value in values.values()), default=0.0)
    title = run.task.by_class_title
    return [Chart("", charts.by_class(part, title=title, low=low)) for part in parts if part], note


def _class_values(model: ModelResult | None, name: str) -> dict[str, float]:
    metric = model.metrics.get(name) if model else None
    values: dict[str, Any] = metric.value if metric and isinstance(metric.value, dict) else {}
    finite = {str(name): format.number(value) for name, value in values.items()}
    return {name: value for name, value in finite.items() if value is not None}


def _measurements(run: RunData) -> list[tuple[str, str, str]]:
    """(metric, how, models), one row for models measured in the same way."""
    found: dict[tuple[str, str], list[str]] = {}
    for model in run.models:
        for name, metric in model.metrics.items():
            if metric.how:
                title = run.task.metric_name if name == run.task.headline else name.replace("_", " ")
                found.setdefault((METRIC_NAMES.get(name, title), metric.how), []).append(model.label)
    return [(name, how, ", ".join(models)) for (name, how), models in sorted(found.items())]

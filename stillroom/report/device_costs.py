"""Peak memory, load time, energy and trade-off of networks and files, as a table below the results.

The result table has no room for more columns; here a column exists only if some model has a value for it.
"""

from __future__ import annotations

from collections.abc import Callable

from stillroom.report import deployment
from stillroom.report.format import EMPTY, joules, milliseconds, significant
from stillroom.report.run_data import ModelResult, RunData
from stillroom.report.scatter import is_reliable
from stillroom.report.table import Cell, ResultRow, tooltip

MISSING = "not measured"


def rows(run: RunData) -> list[ResultRow]:
    """A row for each model with one of these metrics; none if no model has any."""
    columns: dict[str, Callable[[ModelResult, RunData], Cell]] = {
        "peak_mb": _memory,
        "load_ms": _load_time,
        "energy_j": _energy,
        "pcr": _ratio,
    }
    cells = [cell for name, cell in columns.items() if any(name in model.metrics for model in run.models)]
    cells += [_front] if any(model.front is not None for model in run.models) else []
    found = [ResultRow(model, model.label, "", tuple(cell(model, run) for cell in cells), "") for model in run.models]
    return [row for row in found if any(cell.text not in (EMPTY, MISSING) for cell in row.cells)] if cells else []


def notes(run: RunData) -> list[str]:
    """Explanations of the columns. With deployment limits their verdict is one of them: no ratio hides a miss."""
    found = []
    if any("energy_j" in model.metrics for model in run.models):
        found.append("Energy: for one image; “not measured” does not mean 0.")
    elif rows(run):
        found.append("Energy: neither measured nor estimated in this run.")
    if any("pcr" in model.metrics for model in run.models):
        found.append(
            f"PCR, the Performance-Cost Ratio: {run.task.metric_name} × responsiveness (1 / latency) / cost, relative "
            "to the teacher; below it the cost it uses. Compare only ratios with the same cost."
        )
    if any(model.front is not None for model in run.models):
        found.append(
            f"On the Pareto front: no other model is at least as good in {run.task.metric_name}, latency and size (and "
            "in energy, if all have a value) and better in one of them. Unstable times and unverified files are "
            "excluded."
        )
    if run.deployment:
        found.append(deployment.verdict(run.deployment))
    return found


def _memory(model: ModelResult, run: RunData) -> Cell:
    value = model.value("peak_mb")
    text = MISSING if value is None else f"{significant(value, 3)} MB"
    return Cell("Peak memory", text, tooltip=tooltip(model.metrics.get("peak_mb")))


def _load_time(model: ModelResult, run: RunData) -> Cell:
    value = model.value("load_ms")
    text = MISSING if value is None else f"{milliseconds(value)} ms"
    return Cell("Load time", text, tooltip=tooltip(model.metrics.get("load_ms")))


def _energy(model: ModelResult, run: RunData) -> Cell:
    value, metric = model.value("energy_j"), model.metrics.get("energy_j")
    if metric is None or value is None:
        return Cell("Energy", MISSING)
    return Cell("Energy", joules(value), metric.source or "measured", tooltip(metric))


def _ratio(model: ModelResult, run: RunData) -> Cell:
    value, metric = model.value("pcr"), model.metrics.get("pcr")
    if metric is None or value is None:
        return Cell("PCR", EMPTY, flag=_excluded(model))
    cost = f"by {metric.cost}" if metric.cost else ""
    return Cell("PCR", significant(value, 3), cost, tooltip(metric), _missed(model, run))


def _front(model: ModelResult, run: RunData) -> Cell:
    complete = all(value is not None for value in (run.headline(model), *map(model.value, ("latency_ms", "bytes"))))
    if model.front is None or not complete:
        return Cell("Pareto front", EMPTY)
    excluded = _excluded(model)
    text = "excluded" if excluded else "on it" if model.front else "behind"
    return Cell("Pareto front", text, flag=excluded or _missed(model, run))


def _excluded(model: ModelResult) -> str:
    if is_reliable(model):
        return ""
    return "UNVERIFIED" if model.verified is False else "unstable"


def _missed(model: ModelResult, run: RunData) -> str:
    missed = model.key == run.deployment.get("file") and deployment.status(run.deployment) == "MISSED"
    return "misses the limits" if missed else ""

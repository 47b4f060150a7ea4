"""The result table of report and card: a row for each model, a cell for each metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stillroom.report.format import EMPTY, count, exact, interval, milliseconds, percent, plain, rate, share, size
from stillroom.report.metric_value import MetricValue
from stillroom.report.run_data import ModelResult, RunData
from stillroom.report.task_description import metric_title

WITH_COLUMN = {"agreement", "parameters", "macs", "bytes", "latency_ms", "latency_p95_ms", "throughput"}
WITH_COLUMN |= {"peak_mb", "load_ms", "energy_j", "pcr"}
"""Metrics with a column of their own, beside the headline metric."""
VERIFICATION = {"gate", "max_difference", "mean_difference", "verified"}
"""Criteria of the verification of a file; not metrics of its quality."""
MAX_COLUMNS = 7  # that fit beside the names


@dataclass(frozen=True)
class Cell:
    """One cell of the table.

    Attributes:
        name: of the column.
        text: the value.
        note: smaller text below: an interval, or the share of the teacher's value.
        tooltip: all digits, and how it was measured.
        flag: a warning of one word, "unstable".
    """

    name: str
    text: str
    note: str = ""
    tooltip: str = ""
    flag: str = ""


@dataclass(frozen=True)
class TextRow:
    """A row of a plain table; `link` leads to the page of its subject."""

    title: str
    cells: tuple[str, ...]
    link: str = ""


@dataclass(frozen=True)
class ResultRow:
    """One model. `badge`: "verified", "UNVERIFIED" or, if it is not a file, ""."""

    model: ModelResult
    label: str
    note: str
    cells: tuple[Cell, ...]
    badge: str


def rows(run: RunData) -> list[ResultRow]:
    """The rows in the order of the page: teacher, baseline, intermediate networks, student, files."""
    teacher = run.model("teacher")
    return [_row(model, teacher, run) for model in run.models]


def further(run: RunData) -> list[list[ResultRow]]:
    """The other measured numbers, as tables of at most `MAX_COLUMNS` columns: a row for each model with one of them."""
    skipped = WITH_COLUMN | VERIFICATION | {run.task.headline, run.task.by_class}
    names = dict.fromkeys(name for model in run.models for name in model.metrics if name not in skipped)
    shown = [name for name in names if all(_is_number(model, name) for model in run.models)]
    parts = [shown[start : start + MAX_COLUMNS] for start in range(0, len(shown), MAX_COLUMNS)]
    tables = [[_further_row(model, part, run) for model in run.models] for part in parts]
    return [[row for row in rows if any(cell.text != EMPTY for cell in row.cells)] for rows in tables]


def agreement(run: RunData) -> str:
    """The definition of agreement in this run, as a sentence."""
    if run.task.predicts_classes:
        return "Agreement: share of images with the same top-1 prediction."
    found = [model.metrics["agreement"].how for model in run.models if "agreement" in model.metrics]
    how = next((how for how in found if how), "").strip().rstrip(".")
    return f"Agreement: {how}." if how else "Agreement: similarity of two outputs for the same images."


def network(run: RunData, role: str) -> str:
    """A network with its arguments: "resnet20 (width 2.0)"; an ensemble as "a + b"."""
    record = run.section("networks", role)
    members = record.get("members")
    return " + ".join(map(_network_title, members)) if isinstance(members, list) else _network_title(record)


def tooltip(metric: MetricValue | None, *more: str) -> str:
    """All digits of a metric, and how it was measured."""
    return ". ".join(part for part in (exact(metric.value), *more, metric.how) if part) if metric else ""


def _row(model: ModelResult, teacher: ModelResult | None, run: RunData) -> ResultRow:
    cells = (
        _metric_cell(run.task.title, model.metrics.get(run.task.headline)),
        _agreement(model),
        _cost_cell("Parameters", model, "parameters", teacher),
        _cost_cell("MACs", model, "macs", teacher),
        _cost_cell("Size", model, "bytes", teacher),
        _latency(model),
        Cell("Throughput", rate(model.value("throughput")), tooltip=tooltip(model.metrics.get("throughput"))),
    )
    badge = "" if model.verified is None else "verified" if model.verified else "UNVERIFIED"
    return ResultRow(model, model.label, _note(model, run), cells, badge)


def _note(model: ModelResult, run: RunData) -> str:
    if model.role == "baseline":
        return "the student without distillation"
    if model.role == "file":
        return model.path.rsplit("/", 1)[-1]
    if model.role == "stage":
        return model.what
    if model.role == "student" and model.what:
        return f"{network(run, model.role)}, after {model.what}"
    seed = run.info.get("teacher_of_seed") if model.role == "teacher" else None
    return network(run, model.role) + ("" if seed is None else f", from seed {seed}")


def _network_title(record: Any) -> str:
    found = record if isinstance(record, dict) else {}
    name, arguments = str(found.get("network") or ""), found.get("arguments")
    extra = ", ".join(f"{key} {value}" for key, value in arguments.items()) if isinstance(arguments, dict) else ""
    return f"{name} ({extra})" if name and extra else name


def _is_number(model: ModelResult, name: str) -> bool:
    """Whether a metric of a model, if it has it and it has a value, is one number."""
    metric = model.metrics.get(name)
    value = metric.value if metric else None
    return value is None or isinstance(value, float)


def _is_share(value: float | None) -> bool:
    return value is None or 0 <= value <= 1


def _further_row(model: ModelResult, names: list[str], run: RunData) -> ResultRow:
    shares = {name for name in names if all(_is_share(one.value(name)) for one in run.models)}
    titles = {name: metric_title(name, run.task) for name in names}
    cells = [_metric_cell(titles[name], model.metrics.get(name), as_share=name in shares) for name in names]
    return ResultRow(model, model.label, "", tuple(cells), "")


def _metric_cell(title: str, metric: MetricValue | None, *, as_share: bool = True) -> Cell:
    if metric is None:
        return Cell(title, EMPTY)
    text = percent(metric.value) if as_share else plain(metric.value)
    return Cell(title, text, _interval_and_n(metric, as_share=as_share), tooltip(metric))


def _agreement(model: ModelResult) -> Cell:
    metric = model.metrics.get("agreement")
    if metric is None:
        return Cell("Agreement", EMPTY)
    reference = "with student" if model.role == "file" else "with teacher"
    largest = "" if metric.max_difference is None else f"Largest difference {exact(metric.max_difference)}"
    return Cell("Agreement", percent(metric.value), reference, tooltip(metric, interval(metric.ci95), largest))


def _latency(model: ModelResult) -> Cell:
    median, p95 = model.metrics.get("latency_ms"), model.metrics.get("latency_p95_ms")
    if median is None:
        return Cell("Latency, p50 / p95", EMPTY)
    unstable = "" if median.stable and (p95 is None or p95.stable) else "unstable"
    text = f"{milliseconds(median.value)} / {milliseconds(p95.value) if p95 else EMPTY} ms"
    return Cell("Latency, p50 / p95", text, tooltip=tooltip(median), flag=unstable)


def _cost_cell(title: str, model: ModelResult, name: str, teacher: ModelResult | None) -> Cell:
    metric = model.metrics.get(name)
    if metric is None:
        return Cell(title, EMPTY)
    text = size(metric.value) if name == "bytes" else count(metric.value)
    part = share(metric.value, teacher.value(name)) if teacher and model.role != "teacher" else EMPTY
    return Cell(title, text, "" if part == EMPTY else part, tooltip(metric))


def _interval_and_n(metric: MetricValue, *, as_share: bool) -> str:
    ends = interval(metric.ci95) if as_share else " to ".join(map(plain, metric.ci95 or ()))
    return ", ".join(part for part in (ends, f"n {metric.n:,}" if metric.n else "") if part)

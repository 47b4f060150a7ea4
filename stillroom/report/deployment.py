"""Limits of the device, whether the file keeps them, and the candidates considered: `target` and `chosen` of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stillroom.report.format import EMPTY, count, joules, milliseconds, number, significant
from stillroom.report.metric_value import MetricValue, metric_value
from stillroom.report.run_data import RunData
from stillroom.report.table import TextRow

THIS_MACHINE = ("", "this machine")
TITLES = {"latency_ms": "Latency", "size_mb": "Size", "peak_mb": "Peak memory", "energy_j": "Energy"}
LIMIT_COLUMNS = ("Metric", "Limit", "Measured", "Result", "How it was measured")
CANDIDATE_COLUMNS = ("Candidate", "MACs", "Size", "Latency", "Meets the limits", "Chosen")
VERDICT_STYLES = {"met": "better", "MISSED": "worse", "not checked": "unknown"}


@dataclass(frozen=True)
class DeploymentSummary:
    """The section on the device: the outcome as a word and as a sentence, a row per limit, and the candidates."""

    status: str
    sentence: str
    limits: tuple[TextRow, ...]
    why: str
    candidates: tuple[TextRow, ...]

    @property
    def style(self) -> str:
        """CSS class of the sentence: "better", "worse" or "unknown"."""
        return VERDICT_STYLES[self.status]


def read(run: RunData) -> DeploymentSummary | None:
    """The section of a run; None for one without limits."""
    chosen = run.section("chosen")
    table, target = chosen.get("table"), run.deployment
    rows = [row for row in table if isinstance(row, dict)] if isinstance(table, list) else []
    if not target and not rows:
        return None
    limits = tuple(_limit_row(name, limit, _measured(target, name)) for name, limit in _limits(target).items())
    why = str(chosen.get("why") or "")
    return DeploymentSummary(status(target), verdict(target), limits, why, tuple(candidate_rows(rows)))


def status(target: Mapping[str, Any]) -> str:
    """The outcome: "met", "MISSED" or "not checked".

    A measured value above its limit is a miss, whatever else is written; a limit without a measurement is never met.
    """
    results = [_compare(limit, _measured(target, name)) for name, limit in _limits(target).items()]
    if "MISSED" in results or target.get("met") is False:
        return "MISSED"
    return "met" if target.get("met") is True and "not measured" not in results else "not checked"


def verdict(target: Mapping[str, Any]) -> str:
    """The outcome as a sentence, with each limit and the measured value."""
    if not target:
        return "Nothing was measured on the device."
    file, threads = str(target.get("file") or "the file"), number(target.get("threads")) or 1
    where = str(target.get("where") or THIS_MACHINE[1])
    limits = "; ".join(
        f"{TITLES.get(name, name).lower()} {_measured_text(name, _measured(target, name))} (limit {_text(name, limit)})"
        for name, limit in _limits(target).items()
    )
    why = str(target.get("why") or "").strip().rstrip(".")
    reason = f". {why[:1].upper()}{why[1:]}" if why else ""
    device = f"{file} on {where} with {threads:.0f} thread{'s' if threads != 1 else ''}"
    return f"Deployment limits {status(target)}: {device}{': ' if limits else ''}{limits}{reason}."


def candidate_rows(rows: Sequence[Mapping[str, Any]]) -> list[TextRow]:
    """A row for each compression that was considered."""
    return [
        TextRow(
            str(row.get("what") or EMPTY),
            (
                count(row.get("macs")),
                _text("size_mb", row.get("size_mb")),
                _latency(row),
                "yes" if row.get("meets") is True else "NO" if row.get("meets") is False else EMPTY,
                "chosen" if row.get("chosen") is True else "",
            ),
        )
        for row in rows
    ]


def satisfiable(rows: Sequence[Mapping[str, Any]]) -> str:
    """Whether any candidate meets the limits, as a sentence; one without a measurement leaves the question open."""
    meeting = sum(row.get("meets") is True for row in rows)
    unchecked = sum(not isinstance(row.get("meets"), bool) for row in rows)
    word = "satisfiable" if meeting else "not known whether satisfiable" if unchecked else "NOT satisfiable"
    rest = f", {unchecked} not checked" if unchecked else ""
    return f"{word}: {meeting} of {len(rows)} candidates meet the limits{rest}"


def chart_limit(run: RunData, cost: str) -> float | None:
    """The limit of a chart's cost, if it applies to the values shown: sizes, and times of one thread here."""
    limits = _limits(run.deployment)
    if cost == "bytes":
        return 1e6 * limits["size_mb"] if "size_mb" in limits else None
    where, threads = str(run.deployment.get("where") or ""), number(run.deployment.get("threads"))
    return limits.get(cost) if where in THIS_MACHINE and threads in (None, 1) else None


def _latency(row: Mapping[str, Any]) -> str:
    """The median, and the upper end of its interval if that was compared with the limit."""
    upper = number(row.get("latency_upper_ms"))
    median = _text("latency_ms", row.get("latency_ms"))
    return median if upper is None else f"{median}, up to {milliseconds(upper)}"


def _limits(target: Mapping[str, Any]) -> dict[str, float]:
    found = target.get("limits")
    limits = {str(name): number(limit) for name, limit in found.items()} if isinstance(found, dict) else {}
    return {name: limit for name, limit in limits.items() if limit is not None and limit > 0}


def _measured(target: Mapping[str, Any], name: str) -> MetricValue | None:
    found = target.get("found")
    return metric_value(found.get(name)) if isinstance(found, dict) else None


def _compare(limit: float, measured: MetricValue | None) -> str:
    value = number(measured.value) if measured else None
    return "not measured" if value is None else "met" if value <= limit else "MISSED"


def _limit_row(name: str, limit: float, measured: MetricValue | None) -> TextRow:
    how = measured.how if measured else ""
    return TextRow(
        TITLES.get(name, name), (_text(name, limit), _measured_text(name, measured), _compare(limit, measured), how)
    )


def _measured_text(name: str, measured: MetricValue | None) -> str:
    value = number(measured.value) if measured else None
    if measured is None or value is None:
        return "not measured"
    source = f" {measured.source}" if measured.source else ""
    return _text(name, value) + source + ("" if measured.stable else " (unstable)")


def _text(name: str, value: Any) -> str:
    amount = number(value)
    if amount is None:
        return EMPTY
    if name.endswith("_ms"):
        return f"{milliseconds(amount)} ms"
    if name.endswith("_mb"):
        return f"{significant(amount, 3)} MB"
    return joules(amount) if name.endswith("_j") else f"{amount:g}"

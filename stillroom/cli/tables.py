"""Metrics of runs as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from stillroom.benchmark.errors import UnstableTiming

if TYPE_CHECKING:
    from stillroom.report.multi_seed import MultiSeedResults


def results(metrics: Mapping[str, Any], task: Mapping[str, Any] | None = None) -> Table:
    """`metrics.json` as a table.

    Args:
        metrics: the file as a dictionary.
        task: `task` of `run.json`, which names the headline metric; without it, image classification.
    """
    from stillroom.report import task_description  # here, because its package needs Jinja, and most commands do not

    description = task_description.read(task)
    headline, title, student = description.headline, description.metric_name, metrics.get("student", {})
    if student and headline not in student:  # evaluated on labelled images after a run on unlabelled ones, or reverse
        headline = next(iter(student))
        title = task_description.in_sentence(task_description.metric_title(headline))
    table = Table(box=None, pad_edge=False, header_style="bold")
    rows = [(name, metrics[name]) for name in ("teacher", "baseline") if name in metrics]
    rows += [(row["stage"], row) for row in metrics.get("stages", [])]
    rows += [("student", student)] if student else []
    further = _further_metrics([*(row for _, row in rows), *metrics.get("exports", [])])
    titles = [task_description.metric_title(name) for name in further]
    for column in ("", title, "95 % CI", "agreement", "MACs", "size", "latency", *titles, "verified"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for name, row in rows:
        table.add_row(name, *_cells(row, headline), *_further_cells(row, further), "")
    for row in metrics.get("exports", []):
        name = f"{row['target']}, {'float' if row['bits'] == 32 else 'int' + str(row['bits'])}"
        verified = "yes" if row["verified"] else "NO"
        table.add_row(name, *_cells(row, headline), *_further_cells(row, further), verified)
    return table


def multi_seed(found: MultiSeedResults) -> Table:
    """The metrics over several seeds as a table: mean ± standard deviation, and the range of the headline metric."""
    from stillroom.report import multi_seed_page

    table = Table(box=None, pad_edge=False, header_style="bold")
    rows = multi_seed_page.rows(found)
    device = [cell.name for cell in rows[0].cells[5:]] if rows else []
    for column in ("", found.task.metric_name, "range", "agreement", "MACs", "size", "latency", *device, "verified"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for row in rows:
        headline, *others = row.cells
        verified = {"verified": "yes", "UNVERIFIED": "NO"}.get(row.badge, "")
        table.add_row(row.label, headline.text, headline.note, *(cell.text for cell in others), verified)
    return table


def latencies(rows: Mapping[str, Any]) -> Table:
    """Latencies of networks and files as a table; peak memory and energy, too, if any of them has a value."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    device = [name for name in ("peak_mb", "energy_j") if any(name in row for row in rows.values())]
    titles = {"peak_mb": "peak memory", "energy_j": "energy"}
    for column in ("", "latency p50", "p95", "images/s", "spread", *(titles[name] for name in device)):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in rows.items():
        latency = row["latency_ms"]
        flag = "" if latency.get("stable", True) else f"  unstable ({latency.get('flag', UnstableTiming.code)})"
        table.add_row(
            name,
            f"{latency['value']:.2f} ms",
            f"{row['latency_p95_ms']['value']:.2f} ms",
            f"{row['throughput']['value']:.0f}",
            f"{latency.get('spread', 0.0):.0%}{flag}",
            *(_device_cost(row.get(name), name) for name in device),
        )
    return table


def verdict(folder: Path) -> str:
    """The gain over the baseline in a sentence; empty where nothing of a student was measured."""
    from stillroom.report import gain, run_data

    return gain.verdict(run_data.read(folder))[1]


def deployment(metrics: Mapping[str, Any]) -> str:
    """Whether the file keeps the limits of the device, in a line; empty for a run without limits."""
    from stillroom.report import deployment as section

    return section.verdict(metrics["target"]) if metrics.get("target") else ""


def candidates(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The compressions that were considered for a device, and below them whether any keeps its limits.

    Args:
        rows: `table` of `chosen` in `run.json`.
    """
    from stillroom.report import deployment as section

    table = Table(
        box=None, pad_edge=False, header_style="bold", caption=section.satisfiable(rows), caption_justify="left"
    )
    for column in ("candidate", "MACs", "size", "latency", "meets the limits", ""):
        table.add_column(column, justify="left" if column in ("candidate", "") else "right", no_wrap=True)
    for row in section.candidate_rows(rows):
        table.add_row(row.title, *row.cells)
    return table


def _cells(row: Mapping[str, Any], headline: str) -> list[str]:
    def cell(name: str, form: str, scale: float = 1.0) -> str:
        value = row[name]["value"] if name in row else None
        return "" if value is None else form.format(value * scale)

    low, high = row.get(headline, {}).get("ci95", (None, None))
    interval = "" if low is None else f"{low * 100:.1f}-{high * 100:.1f}"
    unstable = "" if row.get("latency_ms", {}).get("stable", True) else "~"
    return [
        cell(headline, "{:.1f} %", 100),
        interval,
        cell("agreement", "{:.1f} %", 100),
        cell("macs", "{:.2f} M", 1e-6),
        cell("bytes", "{:.0f} kB", 1e-3),
        unstable + cell("latency_ms", "{:.2f} ms"),
    ]


def _further_metrics(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of numbers from metrics that the recipe adds to those of the task."""
    found = [(name, metric) for row in rows for name, metric in row.items() if isinstance(metric, dict)]
    return list(dict.fromkeys(n for n, metric in found if metric.get("metric") and isinstance(metric["value"], float)))


def _further_cells(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    from stillroom.report.format import percent, plain

    values = [row.get(name, {}).get("value") for name in names]
    return ["" if one is None else percent(one) if 0 <= one <= 1 else plain(one) for one in values]


def _device_cost(metric: Mapping[str, Any] | None, name: str) -> str:
    from stillroom.report.format import joules, significant

    if metric is None or metric.get("value") is None:
        return "not measured"
    if name == "peak_mb":
        return f"{significant(metric['value'], 3)} MB"
    return f"{joules(metric['value'])} {metric.get('source', 'measured')}"

"""Figures of runs as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from stillroom.benchmark.errors import UnstableTiming

if TYPE_CHECKING:
    from stillroom.report.seeds import Seeds


TITLES = {"teacher": "teacher", "baseline": "untaught"}


def results(metrics: Mapping[str, Any], task: Mapping[str, Any] | None = None) -> Table:
    """`metrics.json` as a table.

    Args:
        metrics: the file, read.
        task: `task` of `run.json`, which says what figure leads; a run without it sorts images into classes.
    """
    from stillroom.report import about  # here, because the package needs Jinja, and `stillroom list` needs neither

    words = about.read(task)
    lead, title, student = words.headline, words.spoken, metrics.get("student", {})
    if student and lead not in student:  # judged on images that have labels where the run's had none, or the reverse
        lead = next(iter(student))
        title = about.spoken(about.titled(lead))
    table = Table(box=None, pad_edge=False, header_style="bold")
    rows = [(called, metrics[name]) for name, called in TITLES.items() if name in metrics]
    rows += [(row["stage"], row) for row in metrics.get("stages", [])]
    rows += [("student", student)] if student else []
    further = _further([*(row for _, row in rows), *metrics.get("exports", [])])
    for column in ("", title, "95 %", "agrees", "MACs", "size", "p50", *map(about.titled, further), "verified"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for called, row in rows:
        table.add_row(called, *_cells(row, lead), *_values(row, further), "")
    for row in metrics.get("exports", []):
        called = f"{row['target']}, {'float' if row['bits'] == 32 else 'int' + str(row['bits'])}"
        table.add_row(called, *_cells(row, lead), *_values(row, further), "yes" if row["verified"] else "NO")
    return table


def _further(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The numbers of the metrics that the recipe adds to the task's own."""
    figures = [(name, found) for row in rows for name, found in row.items() if isinstance(found, dict)]
    return list(dict.fromkeys(n for n, found in figures if found.get("metric") and isinstance(found["value"], float)))


def _values(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    from stillroom.report.format import percent, plain

    values = [row.get(name, {}).get("value") for name in names]
    return ["" if one is None else percent(one) if 0 <= one <= 1 else plain(one) for one in values]


def spread(found: Seeds) -> Table:
    """The figures of several seeds as a table: means with standard deviations, the leading figure with its ends too."""
    from stillroom.report import spread as pages

    table = Table(box=None, pad_edge=False, header_style="bold")
    rows = pages.rows(found)
    more = [cell.name for cell in rows[0].cells[5:]] if rows else []
    for column in ("", found.about.spoken, "least to greatest", "agrees", "MACs", "size", "p50", *more, "verified"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for row in rows:
        lead, *others = row.cells
        title = "untaught" if row.speaker.role == "baseline" else row.label
        passed = {"verified": "yes", "UNVERIFIED": "NO"}.get(row.badge, "")
        table.add_row(title, lead.text, lead.note, *(cell.text for cell in others), passed)
    return table


def _cells(row: Mapping[str, Any], headline: str) -> list[str]:
    def cell(name: str, form: str, scale: float = 1.0) -> str:
        value = row[name]["value"] if name in row else None
        return "" if value is None else form.format(value * scale)

    low, high = row.get(headline, {}).get("ci95", (None, None))
    interval = "" if low is None else f"{low * 100:.1f}-{high * 100:.1f}"
    shaky = "" if row.get("latency_ms", {}).get("stable", True) else "~"
    return [
        cell(headline, "{:.1f} %", 100),
        interval,
        cell("agreement", "{:.1f} %", 100),
        cell("macs", "{:.2f} M", 1e-6),
        cell("bytes", "{:.0f} kB", 1e-3),
        shaky + cell("latency_ms", "{:.2f} ms"),
    ]


def times(rows: Mapping[str, Any]) -> Table:
    """Times of networks and files as a table; peak memory and energy too, where any of them has one."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    more = [name for name in ("peak_mb", "energy_j") if any(name in row for row in rows.values())]
    titles = {"peak_mb": "peak memory", "energy_j": "energy"}
    for column in ("", "latency p50", "p95", "images/s", "spread", *(titles[name] for name in more)):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in rows.items():
        spread = row["latency_ms"].get("spread", 0.0)
        steady, code = (
            row["latency_ms"].get(key, known) for key, known in (("stable", True), ("flag", UnstableTiming.code))
        )
        flag = "" if steady else f"  unstable ({code})"
        table.add_row(
            name,
            f"{row['latency_ms']['value']:.2f} ms",
            f"{row['latency_p95_ms']['value']:.2f} ms",
            f"{row['throughput']['value']:.0f}",
            f"{spread:.0%}{flag}",
            *(_need(row.get(name), name) for name in more),
        )
    return table


def target(metrics: Mapping[str, Any]) -> str:
    """Whether the file is what the device asks for, in a line; empty for a run without a target."""
    from stillroom.report import budget

    return budget.verdict(metrics["target"]) if metrics.get("target") else ""


def candidates(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The ways to meet a target that were considered, and below them whether any of them does.

    Args:
        rows: `table` of `chosen` in `run.json`.
    """
    from stillroom.report import budget

    table = Table(
        box=None, pad_edge=False, header_style="bold", caption=budget.satisfiable(rows), caption_justify="left"
    )
    for column in ("candidate", "MACs", "size", "latency", "meets the target", ""):
        table.add_column(column, justify="left" if column in ("candidate", "") else "right", no_wrap=True)
    for line in budget.candidates(rows):
        table.add_row(line.title, *line.cells)
    return table


def _need(figure: Mapping[str, Any] | None, name: str) -> str:
    from stillroom.report.format import joules, significant

    if figure is None or figure.get("value") is None:
        return "not measured"
    if name == "peak_mb":
        return f"{significant(figure['value'], 3)} MB"
    return f"{joules(figure['value'])} {figure.get('source', 'measured')}"

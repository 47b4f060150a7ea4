"""The cost of each compression stage on validation images: `compress` of `run.json`."""

from __future__ import annotations

from typing import Any

from stillroom.report.format import EMPTY, change, count, duration, milliseconds, number, percent, signed, size
from stillroom.report.run_data import RunData
from stillroom.report.table import TextRow


def columns(run: RunData) -> tuple[str, ...]:
    """The columns of `rows`."""
    return "Network", f"{run.task.title}, val", "MACs", "Size", "Latency", "Duration"


def rows(run: RunData) -> list[TextRow]:
    """A row for each network of the chain, each value with its difference to the network before."""
    records = run.records("compress")
    return [_row(record, before) for record, before in zip(records, [{}, *records], strict=False)]


def _row(record: dict[str, Any], before: dict[str, Any]) -> TextRow:
    def relative(name: str) -> str:
        return change(record.get(name), before.get(name))

    score, last = number(record.get("score")), number(before.get("score"))
    gap = signed(score - last) + " points" if score is not None and last is not None else ""
    latency = number(record.get("latency_ms"))
    cells = (
        _with_difference(percent(score), gap),
        _with_difference(count(record.get("macs")), relative("macs")),
        _with_difference(size(record.get("bytes")), relative("bytes")),
        _with_difference(EMPTY if latency is None else f"{milliseconds(latency)} ms", relative("latency_ms")),
        duration(record.get("seconds")),
    )
    return TextRow(str(record.get("what") or record.get("stage") or EMPTY), cells)


def _with_difference(text: str, difference: str) -> str:
    return f"{text} ({difference})" if difference and text != EMPTY else text

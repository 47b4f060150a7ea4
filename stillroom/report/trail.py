"""What compression cost, stage by stage: `compress` of `run.json`, on validation images, as each stage ended."""

from __future__ import annotations

from typing import Any

from stillroom.report.folder import Folder
from stillroom.report.format import EMPTY, change, count, duration, milliseconds, number, percent, signed, size
from stillroom.report.table import Line


def names(folder: Folder) -> tuple[str, ...]:
    """The columns of `lines`."""
    return "Network", f"{folder.about.title}, val", "MACs", "Size", "Latency", "Time spent"


def lines(folder: Folder) -> list[Line]:
    """A line for each network of the chain, each figure with its difference to the network before."""
    rows = folder.table("compress")
    return [_line(row, before) for row, before in zip(rows, [{}, *rows], strict=False)]


def _line(row: dict[str, Any], before: dict[str, Any]) -> Line:
    def against(name: str) -> str:
        return change(row.get(name), before.get(name))

    score, last = number(row.get("score")), number(before.get("score"))
    gap = signed(score - last) + " points" if score is not None and last is not None else ""
    latency = number(row.get("latency_ms"))
    cells = (
        _with(percent(score), gap),
        _with(count(row.get("macs")), against("macs")),
        _with(size(row.get("bytes")), against("bytes")),
        _with(EMPTY if latency is None else f"{milliseconds(latency)} ms", against("latency_ms")),
        duration(row.get("seconds")),
    )
    return Line(str(row.get("what") or row.get("stage") or EMPTY), cells)


def _with(said: str, difference: str) -> str:
    return f"{said} ({difference})" if difference and said != EMPTY else said

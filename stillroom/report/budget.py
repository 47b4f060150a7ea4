"""What the device asks for, whether the file gives it, and what else was considered: `target` and `chosen` of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stillroom.report.folder import Folder, Measured, figure
from stillroom.report.format import EMPTY, count, joules, milliseconds, number, significant
from stillroom.report.table import Line

HERE = ("", "this machine")
TITLES = {"latency_ms": "Latency", "size_mb": "Size", "peak_mb": "Peak memory", "energy_j": "Energy"}
LIMITS = ("Limit", "At most", "Found", "Verdict", "How it was found")
CANDIDATES = ("Candidate", "MACs", "Size", "Latency", "Meets the target", "Chosen")
KINDS = {"met": "better", "MISSED": "worse", "not judged": "unknown"}


@dataclass(frozen=True)
class Budget:
    """The panel: how it ended in a word and in a sentence, a line for each limit, and the candidates, if there were."""

    word: str
    sentence: str
    limits: tuple[Line, ...]
    why: str
    candidates: tuple[Line, ...]

    @property
    def kind(self) -> str:
        """How the sentence looks: "better", "worse" or "unknown"."""
        return KINDS[self.word]


def read(folder: Folder) -> Budget | None:
    """The panel of a run; None for one without a target."""
    chosen = folder.part("chosen")
    table, target = chosen.get("table"), folder.target
    rows = [one for one in table if isinstance(one, dict)] if isinstance(table, list) else []
    if not target and not rows:
        return None
    lines = tuple(_limit(name, most, _found(target, name)) for name, most in _limits(target).items())
    why = str(chosen.get("why") or "")
    return Budget(word(target), verdict(target), lines, why, tuple(candidates(rows)))


def word(target: Mapping[str, Any]) -> str:
    """How it ended: "met", "MISSED" or "not judged".

    A limit that was found exceeded is a miss, whatever else is written; one that nobody measured is never met.
    """
    judged = [_judge(most, _found(target, name)) for name, most in _limits(target).items()]
    if "MISSED" in judged or target.get("met") is False:
        return "MISSED"
    return "met" if target.get("met") is True and "not measured" not in judged else "not judged"


def verdict(target: Mapping[str, Any]) -> str:
    """The same in a sentence, with each limit and what was found."""
    if not target:
        return "What the device gives was not measured."
    file, threads = str(target.get("file") or "the file"), number(target.get("threads")) or 1
    where = str(target.get("where") or HERE[1])
    with_how_many = f"{threads:.0f} thread{'s' if threads != 1 else ''}"
    said = "; ".join(
        f"{TITLES.get(name, name).lower()} {_found_said(name, _found(target, name))}, at most {_said(name, most)}"
        for name, most in _limits(target).items()
    )
    why = str(target.get("why") or "").strip().rstrip(".")
    reason = f". {why[:1].upper()}{why[1:]}" if why else ""
    return f"Target {word(target)}: {file} on {where} with {with_how_many}{': ' if said else ''}{said}{reason}."


def candidates(rows: Sequence[Mapping[str, Any]]) -> list[Line]:
    """A line for each way that was considered."""
    return [
        Line(
            str(row.get("what") or EMPTY),
            (
                count(row.get("macs")),
                _said("size_mb", row.get("size_mb")),
                _time(row),
                "yes" if row.get("meets") is True else "NO" if row.get("meets") is False else EMPTY,
                "chosen" if row.get("chosen") is True else "",
            ),
        )
        for row in rows
    ]


def _time(row: Mapping[str, Any]) -> str:
    """The median, and the upper end of its interval where that is what was held against the limit."""
    upper = number(row.get("latency_upper_ms"))
    said = _said("latency_ms", row.get("latency_ms"))
    return said if upper is None else f"{said}, up to {milliseconds(upper)}"


def satisfiable(rows: Sequence[Mapping[str, Any]]) -> str:
    """Whether any of the candidates would do, in a sentence; who was not judged is no reason to say no."""
    enough = sum(row.get("meets") is True for row in rows)
    open_ = sum(not isinstance(row.get("meets"), bool) for row in rows)
    word = "satisfiable" if enough else "not known whether satisfiable" if open_ else "NOT satisfiable"
    left = f", {open_} not judged" if open_ else ""
    return f"{word}: {enough} of {len(rows)} candidates meet the target{left}"


def limit(folder: Folder, cost: str) -> float | None:
    """The limit of a chart's cost, if it holds for what the chart shows: sizes, and times of one thread here."""
    limits = _limits(folder.target)
    if cost == "bytes":
        return 1e6 * limits["size_mb"] if "size_mb" in limits else None
    here = str(folder.target.get("where") or "") in HERE and number(folder.target.get("threads")) in (None, 1)
    return limits.get(cost) if here else None


def _limits(target: Mapping[str, Any]) -> dict[str, float]:
    found = target.get("limits")
    read = {str(name): number(most) for name, most in found.items()} if isinstance(found, dict) else {}
    return {name: most for name, most in read.items() if most is not None and most > 0}


def _found(target: Mapping[str, Any], name: str) -> Measured | None:
    found = target.get("found")
    return figure(found.get(name)) if isinstance(found, dict) else None


def _judge(most: float, found: Measured | None) -> str:
    value = number(found.value) if found else None
    return "not measured" if value is None else "met" if value <= most else "MISSED"


def _limit(name: str, most: float, found: Measured | None) -> Line:
    cells = (_said(name, most), _found_said(name, found), _judge(most, found), found.how if found else "")
    return Line(TITLES.get(name, name), cells)


def _found_said(name: str, found: Measured | None) -> str:
    value = number(found.value) if found else None
    if found is None or value is None:
        return "not measured"
    return _said(name, value) + (f" {found.source}" if found.source else "") + ("" if found.stable else " (unstable)")


def _said(name: str, value: Any) -> str:
    amount = number(value)
    if amount is None:
        return EMPTY
    if name.endswith("_ms"):
        return f"{milliseconds(amount)} ms"
    if name.endswith("_mb"):
        return f"{significant(amount, 3)} MB"
    return joules(amount) if name.endswith("_j") else f"{amount:g}"

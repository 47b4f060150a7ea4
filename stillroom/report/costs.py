"""What networks and files need of a device beside time and disk, and what they give for it, as a table of its own.

It stands below the results, whose columns fill the page; only the columns are there for which somebody has a figure.
"""

from __future__ import annotations

from collections.abc import Callable

from stillroom.report import budget
from stillroom.report.folder import Folder, Speaker
from stillroom.report.format import EMPTY, joules, milliseconds, significant
from stillroom.report.scatter import sound
from stillroom.report.table import Cell, Row, hover

MISSING = "not measured"


def rows(folder: Folder) -> list[Row]:
    """A row for whoever has one of these figures; none for a run of which none was asked."""
    columns: dict[str, Callable[[Speaker, Folder], Cell]] = {
        "peak_mb": _memory,
        "load_ms": _load,
        "energy_j": _energy,
        "pcr": _pcr,
    }
    there = [cell for name, cell in columns.items() if any(name in one.figures for one in folder.speakers)]
    there += [_front] if any(one.front is not None for one in folder.speakers) else []
    found = [Row(one, one.label, "", tuple(cell(one, folder) for cell in there), "") for one in folder.speakers]
    return [row for row in found if any(cell.text not in (EMPTY, MISSING) for cell in row.cells)] if there else []


def notes(folder: Folder) -> list[str]:
    """What the columns mean. Where there is a target its verdict is one of the sentences: no ratio hides a miss."""
    said = []
    energies = [one for one in folder.speakers if "energy_j" in one.figures]
    if energies:
        said.append("Energy is that of one image; what was not measured is said to be so, and is not 0.")
    elif rows(folder):
        said.append("Energy: nothing measured or estimated it in this run.")
    if any("pcr" in one.figures for one in folder.speakers):
        said.append(
            f"PCR, the Performance-Cost Ratio: {folder.about.spoken} × responsiveness (1 / latency) / cost, as a "
            "multiple of the teacher's; below it the cost that it is counted in. Compare only those of the same cost."
        )
    if any(one.front is not None for one in folder.speakers):
        said.append(
            f"On the Pareto front: no other is at least as good in {folder.about.spoken}, latency and size (and in "
            "energy, where all have one) and better in one of them. Unstable times and unverified files are left out."
        )
    if folder.target:
        said.append(budget.verdict(folder.target))
    return said


def _memory(speaker: Speaker, folder: Folder) -> Cell:
    value = speaker.value("peak_mb")
    said = MISSING if value is None else f"{significant(value, 3)} MB"
    return Cell("Peak memory", said, hover=hover(speaker.figures.get("peak_mb")))


def _load(speaker: Speaker, folder: Folder) -> Cell:
    value = speaker.value("load_ms")
    said = MISSING if value is None else f"{milliseconds(value)} ms"
    return Cell("Time to load", said, hover=hover(speaker.figures.get("load_ms")))


def _energy(speaker: Speaker, folder: Folder) -> Cell:
    value, found = speaker.value("energy_j"), speaker.figures.get("energy_j")
    if found is None or value is None:
        return Cell("Energy", MISSING)
    return Cell("Energy", joules(value), found.source or "measured", hover(found))


def _pcr(speaker: Speaker, folder: Folder) -> Cell:
    value, found = speaker.value("pcr"), speaker.figures.get("pcr")
    if found is None or value is None:
        return Cell("PCR", EMPTY, flag=_left_out(speaker))
    by = f"by {found.cost}" if found.cost else ""
    return Cell("PCR", significant(value, 3), by, hover(found), _missed(speaker, folder))


def _front(speaker: Speaker, folder: Folder) -> Cell:
    known = all(value is not None for value in (folder.leads(speaker), *map(speaker.value, ("latency_ms", "bytes"))))
    if speaker.front is None or not known:
        return Cell("Pareto front", EMPTY)
    out = _left_out(speaker)
    said = "left out" if out else "on it" if speaker.front else "behind"
    return Cell("Pareto front", said, flag=out or _missed(speaker, folder))


def _left_out(speaker: Speaker) -> str:
    if sound(speaker):
        return ""
    return "UNVERIFIED" if speaker.verified is False else "unstable"


def _missed(speaker: Speaker, folder: Folder) -> str:
    bad = speaker.key == folder.target.get("file") and budget.word(folder.target) == "MISSED"
    return "misses the target" if bad else ""

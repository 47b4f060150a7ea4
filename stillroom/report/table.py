"""The table of results, shared by the report and the card: a row for every speaker, a cell for every figure."""

from __future__ import annotations

from dataclasses import dataclass

from stillroom.report.folder import Folder, Measured, Speaker
from stillroom.report.format import EMPTY, count, exact, interval, milliseconds, percent, rate, share, size

COLUMNS = ("Accuracy", "Agreement", "Parameters", "MACs", "Size", "Latency, p50 / p95", "Throughput")


@dataclass(frozen=True)
class Cell:
    """What one cell says.

    Attributes:
        text: the figure.
        note: the quieter line below: an interval, or the share of the teacher's figure.
        hover: every digit, and how it was measured.
        flag: a warning of one word, "unstable".
    """

    name: str
    text: str
    note: str = ""
    hover: str = ""
    flag: str = ""


@dataclass(frozen=True)
class Row:
    """One speaker: "verified", "UNVERIFIED" or, for what is not a file, "" as its badge."""

    speaker: Speaker
    label: str
    note: str
    cells: tuple[Cell, ...]
    badge: str


def rows(folder: Folder) -> list[Row]:
    """The rows in the order of the page: teacher, baseline, student, files."""
    teacher = folder.speaker("teacher")
    return [_row(speaker, teacher, folder) for speaker in folder.speakers]


def _row(speaker: Speaker, teacher: Speaker | None, folder: Folder) -> Row:
    cells = (
        _accuracy(speaker),
        _agreement(speaker),
        _cell("Parameters", speaker, "parameters", teacher),
        _cell("MACs", speaker, "macs", teacher),
        _cell("Size", speaker, "bytes", teacher),
        _latency(speaker),
        Cell("Throughput", rate(speaker.value("throughput")), hover=_hover(speaker.figures.get("throughput"))),
    )
    badge = "" if speaker.verified is None else "verified" if speaker.verified else "UNVERIFIED"
    return Row(speaker, speaker.label, _note(speaker, folder), cells, badge)


def _note(speaker: Speaker, folder: Folder) -> str:
    if speaker.role == "baseline":
        return "the same student, untaught"
    if speaker.role == "file":
        return speaker.path.rsplit("/", 1)[-1]
    return network(folder, speaker.role)


def network(folder: Folder, role: str) -> str:
    """A network with its arguments: "resnet20 (width 2.0)"."""
    about = folder.part("networks", role)
    extra = ", ".join(f"{name} {value}" for name, value in folder.part("networks", role, "arguments").items())
    name = str(about.get("network") or "")
    return f"{name} ({extra})" if name and extra else name


def _accuracy(speaker: Speaker) -> Cell:
    found = speaker.figures.get("accuracy")
    if found is None:
        return Cell("Accuracy", EMPTY)
    return Cell("Accuracy", percent(found.value), _interval(found), _hover(found))


def _agreement(speaker: Speaker) -> Cell:
    found = speaker.figures.get("agreement")
    if found is None:
        return Cell("Agreement", EMPTY)
    with_whom = "with student" if speaker.role == "file" else "with teacher"
    return Cell("Agreement", percent(found.value), f"{with_whom}", _hover(found, interval(found.ci95)))


def _latency(speaker: Speaker) -> Cell:
    middle, tail = speaker.figures.get("latency_ms"), speaker.figures.get("latency_p95_ms")
    if middle is None:
        return Cell("Latency, p50 / p95", EMPTY)
    late = milliseconds(tail.value) if tail else EMPTY
    unstable = "" if middle.stable and (tail is None or tail.stable) else "unstable"
    text = f"{milliseconds(middle.value)} / {late} ms"
    return Cell("Latency, p50 / p95", text, hover=_hover(middle), flag=unstable)


def _cell(title: str, speaker: Speaker, name: str, teacher: Speaker | None) -> Cell:
    found = speaker.figures.get(name)
    if found is None:
        return Cell(title, EMPTY)
    text = size(found.value) if name == "bytes" else count(found.value)
    part = share(found.value, teacher.value(name)) if teacher and speaker.role != "teacher" else EMPTY
    return Cell(title, text, "" if part == EMPTY else part, _hover(found))


def _interval(found: Measured) -> str:
    return ", ".join(part for part in (interval(found.ci95), f"n {found.n:,}" if found.n else "") if part)


def _hover(found: Measured | None, *more: str) -> str:
    return ". ".join(part for part in (exact(found.value), *more, found.how) if part) if found else ""

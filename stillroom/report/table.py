"""The table of results, shared by the report and the card: a row for every speaker, a cell for every figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stillroom.report.about import titled
from stillroom.report.folder import Folder, Measured, Speaker
from stillroom.report.format import EMPTY, count, exact, interval, milliseconds, percent, plain, rate, share, size

ELSEWHERE = {"agreement", "parameters", "macs", "bytes", "latency_ms", "latency_p95_ms", "throughput"}
ELSEWHERE |= {"peak_mb", "load_ms", "energy_j", "pcr"}
"""Figures with a column of their own, beside the headline figure."""
CHECKED = {"gate", "max_difference", "mean_difference", "verified"}
"""What a file was held to; no figure of how good it is."""
WIDE = 7  # columns that fit beside the names


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
class Line:
    """A line of a plain table; `link` leads to the page of what it is about."""

    title: str
    cells: tuple[str, ...]
    link: str = ""


@dataclass(frozen=True)
class Row:
    """One speaker: "verified", "UNVERIFIED" or, for what is not a file, "" as its badge."""

    speaker: Speaker
    label: str
    note: str
    cells: tuple[Cell, ...]
    badge: str


def rows(folder: Folder) -> list[Row]:
    """The rows in the order of the page: teacher, baseline, the networks on the way to the student, student, files."""
    teacher = folder.speaker("teacher")
    return [_row(speaker, teacher, folder) for speaker in folder.speakers]


def further(folder: Folder) -> list[list[Row]]:
    """The other numbers that were measured, as tables of at most `WIDE` columns; who has none of them has no row."""
    skipped = ELSEWHERE | CHECKED | {folder.about.headline, folder.about.by_class}
    names = dict.fromkeys(name for speaker in folder.speakers for name in speaker.figures if name not in skipped)
    shown = [name for name in names if all(_number(speaker, name) for speaker in folder.speakers)]
    parts = [shown[start : start + WIDE] for start in range(0, len(shown), WIDE)]
    tables = [[_further(speaker, part, folder) for speaker in folder.speakers] for part in parts]
    return [[row for row in rows if any(cell.text != EMPTY for cell in row.cells)] for rows in tables]


def agreement(folder: Folder) -> str:
    """What agreement means in this run, in a sentence."""
    if folder.about.right:
        return "Agreement: share of images with the same first answer."
    found = [speaker.figures["agreement"].how for speaker in folder.speakers if "agreement" in speaker.figures]
    how = next((how for how in found if how), "").strip().rstrip(".")
    return f"Agreement: {how}." if how else "Agreement: how alike two answers to the same images are."


def _number(speaker: Speaker, name: str) -> bool:
    """Whether a speaker's figure, if it has one, is a number; one without a value is."""
    found = speaker.figures.get(name)
    value = found.value if found else None
    return value is None or isinstance(value, float)


def _further(speaker: Speaker, names: list[str], folder: Folder) -> Row:
    shares = {name for name in names if all(_share(one.value(name)) for one in folder.speakers)}
    cells = [_figure(titled(name, folder.about), speaker.figures.get(name), as_share=name in shares) for name in names]
    return Row(speaker, speaker.label, "", tuple(cells), "")


def _row(speaker: Speaker, teacher: Speaker | None, folder: Folder) -> Row:
    cells = (
        _figure(folder.about.title, speaker.figures.get(folder.about.headline)),
        _agreement(speaker),
        _cell("Parameters", speaker, "parameters", teacher),
        _cell("MACs", speaker, "macs", teacher),
        _cell("Size", speaker, "bytes", teacher),
        _latency(speaker),
        Cell("Throughput", rate(speaker.value("throughput")), hover=hover(speaker.figures.get("throughput"))),
    )
    badge = "" if speaker.verified is None else "verified" if speaker.verified else "UNVERIFIED"
    return Row(speaker, speaker.label, _note(speaker, folder), cells, badge)


def _note(speaker: Speaker, folder: Folder) -> str:
    if speaker.role == "baseline":
        return "the same student, untaught"
    if speaker.role == "file":
        return speaker.path.rsplit("/", 1)[-1]
    if speaker.role == "stage":
        return speaker.what
    if speaker.role == "student" and speaker.what:
        return f"{network(folder, speaker.role)}, after {speaker.what}"
    other = folder.run.get("teacher_of_seed") if speaker.role == "teacher" else None
    return network(folder, speaker.role) + ("" if other is None else f", that of seed {other}")


def network(folder: Folder, role: str) -> str:
    """A network with its arguments: "resnet20 (width 2.0)"; several as one with a plus between them."""
    about = folder.part("networks", role)
    members = about.get("members")
    return " + ".join(map(_titled, members)) if isinstance(members, list) else _titled(about)


def _titled(about: Any) -> str:
    found = about if isinstance(about, dict) else {}
    name, arguments = str(found.get("network") or ""), found.get("arguments")
    extra = ", ".join(f"{key} {value}" for key, value in arguments.items()) if isinstance(arguments, dict) else ""
    return f"{name} ({extra})" if name and extra else name


def _share(value: float | None) -> bool:
    return value is None or 0 <= value <= 1


def _figure(title: str, found: Measured | None, *, as_share: bool = True) -> Cell:
    if found is None:
        return Cell(title, EMPTY)
    text = percent(found.value) if as_share else plain(found.value)
    return Cell(title, text, _interval(found, as_share=as_share), hover(found))


def _agreement(speaker: Speaker) -> Cell:
    found = speaker.figures.get("agreement")
    if found is None:
        return Cell("Agreement", EMPTY)
    with_whom = "with student" if speaker.role == "file" else "with teacher"
    apart = "" if found.max_difference is None else f"Largest difference {exact(found.max_difference)}"
    return Cell("Agreement", percent(found.value), with_whom, hover(found, interval(found.ci95), apart))


def _latency(speaker: Speaker) -> Cell:
    middle, tail = speaker.figures.get("latency_ms"), speaker.figures.get("latency_p95_ms")
    if middle is None:
        return Cell("Latency, p50 / p95", EMPTY)
    late = milliseconds(tail.value) if tail else EMPTY
    unstable = "" if middle.stable and (tail is None or tail.stable) else "unstable"
    text = f"{milliseconds(middle.value)} / {late} ms"
    return Cell("Latency, p50 / p95", text, hover=hover(middle), flag=unstable)


def _cell(title: str, speaker: Speaker, name: str, teacher: Speaker | None) -> Cell:
    found = speaker.figures.get(name)
    if found is None:
        return Cell(title, EMPTY)
    text = size(found.value) if name == "bytes" else count(found.value)
    part = share(found.value, teacher.value(name)) if teacher and speaker.role != "teacher" else EMPTY
    return Cell(title, text, "" if part == EMPTY else part, hover(found))


def _interval(found: Measured, *, as_share: bool) -> str:
    ends = interval(found.ci95) if as_share else " to ".join(map(plain, found.ci95 or ()))
    return ", ".join(part for part in (ends, f"n {found.n:,}" if found.n else "") if part)


def hover(found: Measured | None, *more: str) -> str:
    """Every digit of a figure, and how it was measured."""
    return ". ".join(part for part in (exact(found.value), *more, found.how) if part) if found else ""

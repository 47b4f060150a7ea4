"""Folder of several seeds -> `metrics.json`, `report.html` and `README.md` of all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from stillroom.io.files import write_file as write_file
from stillroom.io.files import write_json
from stillroom.report import budget, format, model_card, page, seeds, svg, table
from stillroom.report.about import titled
from stillroom.report.charts import WIDTH
from stillroom.report.costs import MISSING
from stillroom.report.folder import ROLES, Speaker
from stillroom.report.format import EMPTY, percent, signed
from stillroom.report.seeds import Seeds, Spread
from stillroom.report.table import Cell, Line, Row

LANE = 46.0  # height of a speaker's row in the chart
FEW = 4  # seeds, up to which the interval is much wider than that of many


def write(folder: Path) -> Path:
    """The three files, from the seeds' own; the report's path.

    Raises:
        StillroomError: SR-C460 `folder` is not one of several seeds; SR-C432 none has come to its figures; SR-C461 a
            file of theirs is spoilt; SR-R501 the disk is full.
    """
    found = seeds.read(Path(folder))
    if not found.measured:
        raise seeds.unmeasured(found.path)
    write_json(found.path / "metrics.json", found.metrics())
    said = _said(found)
    write_file(found.path / "README.md", model_card.environment().get_template("spread.md").render(said))
    drawn = said | {"chart": _chart(found), "style": page.style()}
    return write_file(found.path / "report.html", page.environment().get_template("spread.html").render(drawn))


def rows(found: Seeds) -> list[Row]:
    """Teacher, baseline, student and files: of every figure the mean, its standard deviation, least and greatest."""
    return [_row(found, speaker) for speaker in found.speakers]


def headline(found: Seeds) -> str:
    """The first sentence: where the student stands, how far seeds differ, and where the teacher stands."""
    about, count = found.about, len(found.measured)
    student, teacher = found.spread("student", about.headline), found.spread("teacher", about.headline)
    assert student is not None  # of a measured run
    beside = f"; the teacher's is {percent(teacher.mean)}" if teacher else ""
    return f"Over {_seeds(count)} the student's {about.spoken} is {_share(student)}{beside}."


def verdict(found: Seeds) -> tuple[str, str]:
    """What teaching added, seed by seed: ("better" | "worse" | "open" | "unknown", sentence)."""
    gain = found.gain(found.about.headline)
    if gain is None:
        return "unknown", "No untaught baseline was measured, so these runs can't say what the teacher added."
    if gain.ci95 is None:
        return "open", f"One seed, {signed(gain.mean)} points: what another would give is not known."
    low, high = gain.ci95
    by = f"by {signed(gain.mean)} points (95 % interval {signed(low)} to {signed(high)})"
    over = f"Over {_seeds(len(gain.values))} teaching changed {found.about.spoken} {by}"
    mean = f"{over} against the same student of the same seed untaught"
    if low <= 0 <= high:
        return "open", f"{mean}; the interval holds 0, so this shows neither help nor harm."
    return ("better", f"{mean}.") if low > 0 else ("worse", f"{mean}: it harms.")


def teacher(found: Seeds) -> str:
    """Whose teacher taught."""
    whose = found.teachers()
    if whose == [None]:
        return "as it was given, the same for all seeds"
    if len(whose) == 1:
        return f"that of seed {whose[0]}, the same for all seeds"
    said = [f"seed {seed}" if seed is not None else "nobody" for seed in whose]
    return f"not the same for all seeds: those of {', '.join(said)}"


def limits(found: Seeds) -> list[str]:
    """What a reader must not conclude."""
    count, gain = len(found.measured), found.gain(found.about.headline)
    said = []
    if gain and 2 <= len(gain.values) <= FEW:
        times = f"{seeds.reach(len(gain.values)):.1f}"
        said.append(
            f"{_seeds(len(gain.values)).capitalize()} make wide intervals: they reach {times} standard errors to "
            "either side of the mean, those of many seeds 2.0."
        )
    if len(found.teachers()) == 1:
        said.append("One teacher taught all of them: how much another teacher's seed would change was not measured.")
    said.append(
        f"All {count} were judged on the same test images: what other images would change is in the intervals of each "
        "seed's own report, not in the spread between seeds."
    )
    return said


def states(found: Seeds) -> list[str]:
    """What went wrong, a sentence each."""
    bad = [
        f"The {speaker.label} file of seed {seed} is UNVERIFIED: don't ship it."
        for speaker in found.speakers
        if speaker.role == "file"
        for seed in found.unverified(speaker.key)
    ]
    targets = {seed: run.target for seed, run in found.measured.items() if run.target}
    bad += [f"Seed {n}: {budget.verdict(one)}" for n, one in targets.items() if budget.word(one) == "MISSED"]
    for seed, how in found.missing().items():
        code = "" if how["exit_code"] in (None, 0) else f", exit code {how['exit_code']}"
        bad.append(f"Seed {seed} is not in these figures: its status is “{how['status']}”{code}.")
    return bad


def _said(found: Seeds) -> dict[str, Any]:
    return {
        "name": found.name,
        "about": found.about,
        "count": len(found.measured),
        "headline": headline(found),
        "verdict": verdict(found),
        "states": states(found),
        "teacher": teacher(found),
        "rows": rows(found),
        "gains": _gains(found),
        "lines": [_line(found, seed) for seed in found.asked],
        "limits": limits(found),
        "recipe": found.recipe,
        "run": found.first,
    }


def _row(found: Seeds, speaker: Speaker) -> Row:
    def spread(name: str) -> Spread | None:
        return found.spread(speaker.key, name)

    cells = (
        _cell(found.about.title, spread(found.about.headline), _share, _range),
        _cell("Agreement", spread("agreement"), _share, _range),
        _cell("MACs", spread("macs"), lambda one: format.count(one.mean)),
        _cell("Size", spread("bytes"), lambda one: format.size(one.mean)),
        _cell("Latency, p50", spread("latency_ms"), _time, _times),
        *_needs(found, speaker),
    )
    if speaker.role != "file":
        network = table.network(found.first, speaker.role)
        notes = {"teacher": f"{network}; {teacher(found)}", "baseline": "the same student, untaught"}
        notes |= {"stage": speaker.what} | ({"student": f"{network}, after {speaker.what}"} if speaker.what else {})
        return Row(speaker, speaker.label, notes.get(speaker.role, network), cells, "")
    count, bad = len(found.measured), len(found.unverified(speaker.key))
    note = f"verified in {count - bad} of {count} seeds"
    return Row(speaker, speaker.label, note, cells, "UNVERIFIED" if bad else "verified")


def _needs(found: Seeds, speaker: Speaker) -> list[Cell]:
    """Memory, energy and Performance-Cost Ratio, for all where any has one."""
    said: tuple[tuple[str, str, Callable[[Spread], str]], ...] = (
        ("peak_mb", "Peak memory", lambda one: f"{format.significant(one.mean, 3)} MB"),
        ("energy_j", "Energy", lambda one: f"{format.joules(one.mean)}, {one.kind or 'measured'}"),
        ("pcr", "PCR", lambda one: format.significant(one.mean, 3) + (f", by {one.kind}" if one.kind else "")),
    )
    there = [one for one in said if any(one[0] in other.figures for other in found.speakers)]
    cells = [_cell(title, found.spread(speaker.key, name), say) for name, title, say in there]
    return [Cell("Energy", MISSING) if cell.name == "Energy" and cell.text == EMPTY else cell for cell in cells]


def _cell(
    name: str, spread: Spread | None, say: Callable[[Spread], str], note: Callable[[Spread], str] = lambda _: ""
) -> Cell:
    if spread is None:
        return Cell(name, EMPTY)
    single = ", ".join(f"seed {seed}: {format.exact(value)}" for seed, value in spread.values.items())
    return Cell(name, say(spread), note(spread) if spread.sd else "", f"{single}. {spread.how}")


def _share(spread: Spread) -> str:
    """98.1 ± 0.4 %, or one number where all are the same."""
    return f"{100 * spread.mean:.1f} ± {100 * spread.sd:.1f} %" if spread.sd else percent(spread.mean)


def _range(spread: Spread) -> str:
    low, high = spread.ends
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def _time(spread: Spread) -> str:
    sd = f" ± {format.significant(spread.sd, 2)}" if spread.sd else ""
    return f"{format.milliseconds(spread.mean)}{sd} ms"


def _times(spread: Spread) -> str:
    return " to ".join(map(format.milliseconds, spread.ends)) + " ms"


def _gains(found: Seeds) -> list[Line]:
    """A line for every share: teacher, untaught and taught student, and what the teacher added."""
    return [_gain(found, name, gain) for name in found.shares() if (gain := found.gain(name))]


def _gain(found: Seeds, name: str, gain: Spread) -> Line:
    title = found.about.title if name == found.about.headline else titled(name, found.about)
    sides = [found.spread(role, name) for role in ROLES]
    said = [f"{_share(one)} ({_range(one)})" if one and one.sd else _share(one) if one else EMPTY for one in sides]
    if gain.ci95 is None:
        return Line(title, (*said, signed(gain.mean), EMPTY))
    low, high = gain.ci95
    words = "the same" if low == high == 0 else "better" if low > 0 else "worse" if high < 0 else "within the noise"
    return Line(title, (*said, f"{signed(gain.mean)} ({signed(low)} to {signed(high)})", words))


def _line(found: Seeds, seed: int) -> Line:
    """A seed's own leading figures, how it ended, and its page where it has one."""
    spreads = [*(found.spread(role, found.about.headline) for role in ROLES), found.gain(found.about.headline)]
    *sides, difference = [one.values.get(seed) if one else None for one in spreads]
    run = found.runs.get(seed)
    link = f"seed-{seed}/report.html" if run and (run.path / "report.html").is_file() else ""
    state = str(run.run.get("status") or "unknown") if run else "not begun"
    return Line(f"seed {seed}", (*map(percent, sides), signed(difference), state), link)


def _chart(found: Seeds) -> Markup:
    """A lane for each network with a mark for each seed; a line joins a seed's untaught and taught student."""
    spreads = {role: found.spread(role, found.about.headline) for role in ROLES}
    lanes = {role: one for role, one in spreads.items() if one}
    low, high = min(one.ends[0] for one in lanes.values()), max(one.ends[1] for one in lanes.values())
    pad, height = 0.08 * (high - low) or 0.02, 34.0 + LANE * len(lanes)
    x = svg.Scale(max(0.0, low - pad), min(1.0, high + pad), 104, WIDTH - 62)
    y = {role: 8 + LANE * (place + 0.5) for place, role in enumerate(lanes)}
    parts = [svg.axis_x(x, 6, height - 24, partial(percent, digits=0 if x.high - x.low >= 0.035 else 1), 4)]
    if {"baseline", "student"} <= lanes.keys():
        for seed in found.measured:
            ends = [lanes[role].values.get(seed) for role in ("baseline", "student")]
            if ends[0] is not None and ends[1] is not None:
                parts.append(svg.line(x(ends[0]), y["baseline"], x(ends[1]), y["student"], "rule"))
    for role, one in lanes.items():
        name = "untaught" if role == "baseline" else role
        parts.append(svg.text(94, y[role], name, anchor="end", style=f"label strong {role}"))
        parts.append(svg.text(WIDTH, y[role], percent(one.mean), anchor="end", style="label strong number"))
        parts += [
            svg.mark(role, x(value), y[role], f"{name}, seed {seed}: {percent(value)}")
            for seed, value in one.values.items()
        ]
    said = "; ".join(f"{role}: " + ", ".join(map(percent, one.values.values())) for role, one in lanes.items())
    return svg.drawing(WIDTH, height, f"{found.about.title} by seed. {said}", *parts)


def _seeds(count: int) -> str:
    return {1: "one seed", 2: "two seeds", 3: "three seeds"}.get(count, f"{count} seeds")

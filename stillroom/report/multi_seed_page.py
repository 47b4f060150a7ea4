"""Folder of several seeds -> `metrics.json`, `report.html` and `README.md` of all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from stillroom.io.files import write_file, write_json
from stillroom.report import deployment, format, model_card, multi_seed, page, svg, table
from stillroom.report.charts import WIDTH
from stillroom.report.device_costs import MISSING
from stillroom.report.format import EMPTY, p_value, percent, signed
from stillroom.report.multi_seed import MultiSeedResults, SeedStatistics
from stillroom.report.run_data import ROLES, ModelResult
from stillroom.report.table import Cell, ResultRow, TextRow
from stillroom.report.task_description import metric_title

LANE = 46.0  # height of a network's row in the chart
FEW_SEEDS = 4  # up to which the interval is much wider than that of many


def write(folder: Path) -> Path:
    """The three files, from those of the seeds; the report's path.

    Raises:
        NotARunFolder, NoFinishedSeed, UnreadableRunFile: SR-C460, SR-C432, SR-C461.
        StillroomError: SR-R501, the disk is full.
    """
    found = multi_seed.read(Path(folder))
    if not found.measured:
        raise multi_seed.no_results(found.path)
    write_json(found.path / "metrics.json", found.metrics())
    values = _template_values(found)
    write_file(found.path / "README.md", model_card.environment().get_template("multi_seed.md").render(values))
    values |= {"chart": _chart(found), "style": page.style()}
    return write_file(found.path / "report.html", page.environment().get_template("multi_seed.html").render(values))


def rows(found: MultiSeedResults) -> list[ResultRow]:
    """Teacher, baseline, student and files: mean, standard deviation and range of every metric."""
    return [_row(found, model) for model in found.models]


def headline(found: MultiSeedResults) -> str:
    """The first sentence: the student's headline metric over the seeds, and the teacher's."""
    name, count = found.task.metric_name, len(found.measured)
    student, teacher = (found.statistics(role, found.task.headline) for role in ("student", "teacher"))
    assert student is not None  # of a measured run
    rest = f"; the teacher's is {percent(teacher.mean)}" if teacher else ""
    return f"Over {_seeds(count)} the student's {name} is {_share(student)}{rest}."


def verdict(found: MultiSeedResults) -> tuple[str, str]:
    """The gain over the baseline, paired by seed: ("better" | "worse" | "open" | "unknown", sentence)."""
    gain = found.gain(found.task.headline)
    if gain is None:
        return "unknown", "No baseline was measured, so these runs do not show what distillation changed."
    if gain.ci95 is None:
        return "open", f"One seed, {signed(gain.mean)} points: the variation between seeds is not known."
    low, high = gain.ci95
    test = f", {p_value(gain.p)} by a paired t test" if gain.p is not None else ""
    points = f"{signed(gain.mean)} points (95 % interval {signed(low)} to {signed(high)}{test})"
    change = f"Over {_seeds(len(gain.values))} distillation changed {found.task.metric_name} by {points}"
    sentence = f"{change}, compared with the baseline of the same seed"
    if low <= 0 <= high:
        return "open", f"{sentence}; the interval contains 0, so this shows neither gain nor loss."
    return ("better", f"{sentence}.") if low > 0 else ("worse", f"{sentence}: it harms.")


def teacher(found: MultiSeedResults) -> str:
    """The origin of the teacher's weights."""
    seeds = found.teacher_seeds()
    if seeds == [None]:
        return "given weights, the same for all seeds"
    if len(seeds) == 1:
        return f"from seed {seeds[0]}, the same for all seeds"
    names = [f"seed {seed}" if seed is not None else "given weights" for seed in seeds]
    return f"not the same for all seeds: from {', '.join(names)}"


def limitations(found: MultiSeedResults) -> list[str]:
    """What the results do not show."""
    count, gain = len(found.measured), found.gain(found.task.headline)
    sentences = []
    if gain and 2 <= len(gain.values) <= FEW_SEEDS:
        errors = f"{multi_seed.t_quantile(len(gain.values)):.1f}"
        sentences.append(
            f"{_seeds(len(gain.values)).capitalize()} give wide intervals: they extend {errors} standard errors to "
            "either side of the mean, those of many seeds 2.0."
        )
    if len(found.teacher_seeds()) == 1:
        sentences.append("All seeds share one teacher: the variation between teachers was not measured.")
    sentences.append(
        f"All {count} were tested on the same images: the variation between test sets is in the intervals of each "
        "seed's own report, not in the standard deviation over seeds."
    )
    return sentences


def problems(found: MultiSeedResults) -> list[str]:
    """Unverified files, missed deployment limits and seeds without results, a sentence each."""
    sentences = [
        f"The {model.label} file of seed {seed} is UNVERIFIED: don't deploy it."
        for model in found.models
        if model.role == "file"
        for seed in found.unverified_seeds(model.key)
    ]
    targets = {seed: run.deployment for seed, run in found.measured.items() if run.deployment}
    missed = {seed: target for seed, target in targets.items() if deployment.status(target) == "MISSED"}
    sentences += [f"Seed {seed}: {deployment.verdict(target)}" for seed, target in missed.items()]
    for seed, record in found.missing().items():
        code = "" if record["exit_code"] in (None, 0) else f", exit code {record['exit_code']}"
        sentences.append(f"Seed {seed} is not included: its status is “{record['status']}”{code}.")
    return sentences


def _template_values(found: MultiSeedResults) -> dict[str, Any]:
    return {
        "name": found.name,
        "task": found.task,
        "count": len(found.measured),
        "headline": headline(found),
        "verdict": verdict(found),
        "problems": problems(found),
        "teacher": teacher(found),
        "rows": rows(found),
        "gains": [_gain_row(found, name, gain) for name in found.common_metrics() if (gain := found.gain(name))],
        "seeds": [_seed_row(found, seed) for seed in found.seeds],
        "limitations": limitations(found),
        "recipe": found.recipe,
        "run": found.first,
    }


def _row(found: MultiSeedResults, model: ModelResult) -> ResultRow:
    def statistics(name: str) -> SeedStatistics | None:
        return found.statistics(model.key, name)

    cells = (
        _cell(found.task.title, statistics(found.task.headline), _share, _range),
        _cell("Agreement", statistics("agreement"), _share, _range),
        _cell("MACs", statistics("macs"), lambda one: format.count(one.mean)),
        _cell("Size", statistics("bytes"), lambda one: format.size(one.mean)),
        _cell("Latency, p50", statistics("latency_ms"), _latency, _latency_range),
        *_device_cells(found, model),
    )
    if model.role != "file":
        network = table.network(found.first, model.role)
        notes = {"teacher": f"{network}; {teacher(found)}", "baseline": "the student without distillation"}
        notes |= {"stage": model.what} | ({"student": f"{network}, after {model.what}"} if model.what else {})
        return ResultRow(model, model.label, notes.get(model.role, network), cells, "")
    count, bad = len(found.measured), len(found.unverified_seeds(model.key))
    note = f"verified in {count - bad} of {count} seeds"
    return ResultRow(model, model.label, note, cells, "UNVERIFIED" if bad else "verified")


def _device_cells(found: MultiSeedResults, model: ModelResult) -> list[Cell]:
    """Memory, energy and Performance-Cost Ratio, for all models if any has a value."""
    columns: tuple[tuple[str, str, Callable[[SeedStatistics], str]], ...] = (
        ("peak_mb", "Peak memory", lambda one: f"{format.significant(one.mean, 3)} MB"),
        ("energy_j", "Energy", lambda one: f"{format.joules(one.mean)}, {one.kind or 'measured'}"),
        ("pcr", "PCR", lambda one: format.significant(one.mean, 3) + (f", by {one.kind}" if one.kind else "")),
    )
    present = [column for column in columns if any(column[0] in other.metrics for other in found.models)]
    cells = [_cell(title, found.statistics(model.key, name), text) for name, title, text in present]
    return [Cell("Energy", MISSING) if cell.name == "Energy" and cell.text == EMPTY else cell for cell in cells]


def _cell(
    name: str,
    metric: SeedStatistics | None,
    text: Callable[[SeedStatistics], str],
    note: Callable[[SeedStatistics], str] = lambda _: "",
) -> Cell:
    if metric is None:
        return Cell(name, EMPTY)
    single = ", ".join(f"seed {seed}: {format.exact(value)}" for seed, value in metric.values.items())
    return Cell(name, text(metric), note(metric) if metric.sd else "", f"{single}. {metric.how}")


def _share(metric: SeedStatistics) -> str:
    """98.1 ± 0.4 %, or one number if all are the same."""
    return f"{100 * metric.mean:.1f} ± {100 * metric.sd:.1f} %" if metric.sd else percent(metric.mean)


def _range(metric: SeedStatistics) -> str:
    low, high = metric.range
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def _latency(metric: SeedStatistics) -> str:
    sd = f" ± {format.significant(metric.sd, 2)}" if metric.sd else ""
    return f"{format.milliseconds(metric.mean)}{sd} ms"


def _latency_range(metric: SeedStatistics) -> str:
    return " to ".join(map(format.milliseconds, metric.range)) + " ms"


def _gain_row(found: MultiSeedResults, name: str, gain: SeedStatistics) -> TextRow:
    """A metric in 0..1: teacher, baseline, student, and the difference of the last two."""
    title = found.task.title if name == found.task.headline else metric_title(name, found.task)
    each = [found.statistics(role, name) for role in ROLES]
    texts = [f"{_share(one)} ({_range(one)})" if one and one.sd else _share(one) if one else EMPTY for one in each]
    if gain.ci95 is None:
        return TextRow(title, (*texts, signed(gain.mean), EMPTY))
    low, high = gain.ci95
    result = "the same" if low == high == 0 else "better" if low > 0 else "worse" if high < 0 else "within the noise"
    return TextRow(title, (*texts, f"{signed(gain.mean)} ({signed(low)} to {signed(high)})", result))


def _seed_row(found: MultiSeedResults, seed: int) -> TextRow:
    """The headline metric of one seed, its status, and its page if it has one."""
    metrics = [*(found.statistics(role, found.task.headline) for role in ROLES), found.gain(found.task.headline)]
    *values, difference = [one.values.get(seed) if one else None for one in metrics]
    run = found.runs.get(seed)
    link = f"seed-{seed}/report.html" if run and (run.path / "report.html").is_file() else ""
    status = str(run.info.get("status") or "unknown") if run else "not started"
    return TextRow(f"seed {seed}", (*map(percent, values), signed(difference), status), link)


def _chart(found: MultiSeedResults) -> Markup:
    """A lane for each network with a marker for each seed; a line joins baseline and student of a seed."""
    statistics = {role: found.statistics(role, found.task.headline) for role in ROLES}
    lanes = {role: one for role, one in statistics.items() if one}
    low, high = min(one.range[0] for one in lanes.values()), max(one.range[1] for one in lanes.values())
    pad, height = 0.08 * (high - low) or 0.02, 34.0 + LANE * len(lanes)
    x = svg.Scale(max(0.0, low - pad), min(1.0, high + pad), 104, WIDTH - 62)
    y = {role: 8 + LANE * (index + 0.5) for index, role in enumerate(lanes)}
    parts = [svg.axis_x(x, 6, height - 24, partial(percent, digits=0 if x.high - x.low >= 0.035 else 1), 4)]
    if {"baseline", "student"} <= lanes.keys():
        for seed in found.measured:
            ends = [lanes[role].values.get(seed) for role in ("baseline", "student")]
            if ends[0] is not None and ends[1] is not None:
                parts.append(svg.line(x(ends[0]), y["baseline"], x(ends[1]), y["student"], "rule"))
    for role, one in lanes.items():
        parts.append(svg.text(94, y[role], role, anchor="end", style=f"label strong {role}"))
        parts.append(svg.text(WIDTH, y[role], percent(one.mean), anchor="end", style="label strong number"))
        parts += [
            svg.mark(role, x(value), y[role], f"{role}, seed {seed}: {percent(value)}")
            for seed, value in one.values.items()
        ]
    values = "; ".join(f"{role}: " + ", ".join(map(percent, one.values.values())) for role, one in lanes.items())
    return svg.drawing(WIDTH, height, f"{found.task.title} by seed. {values}", *parts)


def _seeds(count: int) -> str:
    return {1: "one seed", 2: "two seeds", 3: "three seeds"}.get(count, f"{count} seeds")

"""What a person sees while the program works: progress, refusals, tables. Figures go to stdout, all else to stderr."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections import defaultdict, deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from stillroom.errors import Exit, Failure, Stopped

if TYPE_CHECKING:
    from stillroom.report.seeds import Seeds

QUIET_SECONDS = 10.0  # between two lines where nobody watches
LATELY = 50  # steps over which waiting for data is told

err, out = Console(stderr=True, highlight=False), Console(highlight=False, soft_wrap=True)
for _console in (err, out):
    if not _console.is_terminal:
        _console.width = 120  # a file or a pipe has no width, and a table that is cut says less
log = logging.getLogger("stillroom")


class Watch:
    """Told after every training step: a bar with the time left on a terminal, else one line every ten seconds."""

    def __init__(self, *, quiet: bool = False):
        self._quiet, self._last, self._began = quiet, 0.0, dict[str, tuple[float, int]]()
        self._lately = defaultdict[str, deque[Any]](lambda: deque(maxlen=LATELY))
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, step: Any, steps: int, best: float) -> None:
        """Show the step."""
        if self._quiet:
            return
        began, first = self._began.setdefault(stage, (time.monotonic() - step.seconds, step.step - 1))
        speed = (step.step - first) / max(time.monotonic() - began, 1e-9)
        lately = self._lately[stage]
        lately.append(step)
        waited = sum(one.wait for one in lately) / max(sum(one.seconds for one in lately), 1e-9)
        words: dict[str, Any] = {
            "loss": f"{step.loss:.3f}",
            "val": f"{best:.1%}" if best >= 0 else "-",
            "speed": f"{speed:.1f} steps/s  {speed * step.images:.0f} images/s",
            "wait": f"{waited:.0%}",
        }
        if err.is_terminal:
            self._draw(stage, step.step, steps, words)
        elif time.monotonic() - self._last > QUIET_SECONDS or step.step == steps:
            self._last = time.monotonic()
            left = time.strftime("%H:%M:%S", time.gmtime((steps - step.step) / speed))
            err.print(
                f"{stage:8} {step.step}/{steps}  loss {words['loss']}  best val {words['val']}  "
                f"{words['speed']}  data wait {words['wait']}  {left} left",
                soft_wrap=True,
            )

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar:
            self._bar.stop()

    def _draw(self, stage: str, step: int, steps: int, words: dict[str, Any]) -> None:
        if self._bar is None:
            text = "loss {task.fields[loss]}  best val {task.fields[val]}  {task.fields[speed]}"
            self._bar = Progress(
                TextColumn("{task.description:8}"),
                BarColumn(bar_width=20),
                TextColumn("{task.completed}/{task.total}"),
                TextColumn(text + "  data wait {task.fields[wait]}"),
                TimeRemainingColumn(),
                console=err,
            )
            self._bar.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=steps, **words)
        self._bar.update(self._tasks[stage], completed=step, **words)


def listen(folder: Path | None, *, verbose: bool, quiet: bool, first: bool = True) -> None:
    """Send what is said to stderr, and all of it, tracebacks included, to the run's log.

    Of many processes `first` alone is heard: the others say the same.
    """
    log.setLevel(logging.DEBUG)
    hush()
    log.propagate = False
    if not first:
        log.addHandler(logging.NullHandler())
        return
    said = logging.StreamHandler(sys.stderr)
    said.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    said.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(said)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        kept = logging.FileHandler(folder / "run.log", encoding="utf-8")
        kept.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(kept)


def hush() -> None:
    """Close what `listen` opened."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()


def end(problem: BaseException, *, as_json: bool, verbose: bool, resume: str = "") -> int:
    """Say how it ended; the exit code."""
    log.debug("%s", "".join(traceback.format_exception(problem)))
    if isinstance(problem, Failure | Stopped) and problem.told:
        return int(problem.exit)
    if isinstance(problem, Stopped):
        again = f"; the same command goes on from there: {resume}" if resume else ""
        err.print(f"stopped, everything is saved{again}", markup=False)
        return int(problem.exit)
    if isinstance(problem, Failure):
        if as_json:
            out.print_json(json.dumps({"error": problem.as_dict()}))
        err.print(str(problem), markup=False, soft_wrap=True)
        return int(problem.exit)
    if verbose:
        raise problem
    last = traceback.extract_tb(problem.__traceback__)[-1]
    err.print(
        f"SR-0000 a fault of this program: {type(problem).__name__}: {problem}\n"
        f"  why    {Path(last.filename).name}, line {last.lineno}\n"
        "  effect stopped; what was saved is intact\n"
        "  fix    give the command again with -v and send its traceback to the issue tracker",
        markup=False,
        soft_wrap=True,
    )
    return int(Exit.FAILED)


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
    for column in ("", title, "95 %", "agrees", "MACs", "size", "p50", "verified"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    titles = {"teacher": "teacher", "baseline": "untaught", "student": "student"}
    for name, called in titles.items():
        if name in metrics:
            table.add_row(called, *_cells(metrics[name], lead), "")
    for row in metrics.get("exports", []):
        called = f"{row['target']}, {'float' if row['bits'] == 32 else 'int' + str(row['bits'])}"
        table.add_row(called, *_cells(row, lead), "yes" if row["verified"] else "NO")
    return table


def spread(found: Seeds) -> Table:
    """The figures of several seeds as a table: means with standard deviations, the leading figure with its ends too."""
    from stillroom.report import spread as pages

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", found.about.spoken, "least to greatest", "agrees", "MACs", "size", "p50", "verified"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for row in pages.rows(found):
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
    """Times of networks and files as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "latency p50", "p95", "images/s", "spread"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in rows.items():
        spread = row["latency_ms"].get("spread", 0.0)
        flag = "" if row["latency_ms"].get("stable", True) else "  unstable (SR-B901)"
        table.add_row(
            name,
            f"{row['latency_ms']['value']:.2f} ms",
            f"{row['latency_p95_ms']['value']:.2f} ms",
            f"{row['throughput']['value']:.0f}",
            f"{spread:.0%}{flag}",
        )
    return table


def plan(found: Mapping[str, Any]) -> None:
    """What `stillroom plan` found: a step of each way, hours of each stage, and what follows."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("a step", "ms", "10 to 90 %", "images/s", "data wait", "peak memory"):
        table.add_column(column, justify="left" if column == "a step" else "right", no_wrap=True)
    for name, way in found["ways"].items():
        low, middle, high = way["step_ms"]
        memory = "" if way["peak_gb"] is None else f"{way['peak_gb']:.1f} GB"
        speed = f"{way['images_per_second']:.0f}"
        table.add_row(name, f"{middle:.1f}", f"{low:.1f}-{high:.1f}", speed, f"{way['data_wait']:.0%}", memory)
    out.print(table)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("hours", "", "10 to 90 %"):
        table.add_column(column, justify="left" if column == "hours" else "right", no_wrap=True)
    for name, (low, middle, high) in found["hours"].items():
        table.add_row(name, f"{middle:.3g}", f"{low:.3g}-{high:.3g}")
    out.print(table)
    teacher, disk = found["teacher"], found["disk_gb"]
    out.print(f"the teacher is asked {teacher['asked']}, because {teacher['why']}", markup=False)
    out.print(
        f"disk: checkpoints {disk['checkpoints']:g} GB, a cache of {teacher['answers']:,} answers "
        f"({teacher['looks']} looks) {disk['cache']:g} GB; {disk['free']:g} GB are free",
        markup=False,
    )


def labelled(found: Mapping[str, Any]) -> None:
    """What `stillroom label` did."""
    size = f"{found['answers']:,} answers, {found['bytes'] / 2**20:.1f} MB"
    audit = (
        "" if found["worst"] is None else f"; {found['audited']:.0%} asked again, off by {found['worst']:.1g} at most"
    )
    out.print(f"{size}, {found['made']:,} of them new{audit}", markup=False)
    out.print(found["folder"], markup=False)

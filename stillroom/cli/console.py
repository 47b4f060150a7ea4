"""Terminal output: progress, errors, tables. Results go to stdout, everything else to stderr."""

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

from stillroom.cli import tables
from stillroom.errors import Exit, StillroomError, Stopped
from stillroom.io.run_dir import RunDir

if TYPE_CHECKING:
    from stillroom.pipeline.resume import RunResult

SECONDS_BETWEEN_LINES = 10.0  # of progress that is not on a terminal
WAIT_WINDOW = 50  # steps over which the data wait is averaged

err, out = Console(stderr=True, highlight=False), Console(highlight=False, soft_wrap=True)
for _console in (err, out):
    if not _console.is_terminal:
        _console.width = 120  # a file or a pipe has no width, and a table should not be cut
log = logging.getLogger("stillroom")

MODES = {"cached": "cached", "live": "computed live at every step"}


class ProgressDisplay:
    """Progress of training: a bar with the remaining time on a terminal, else one line every ten seconds."""

    def __init__(self, *, quiet: bool = False):
        self._quiet, self._last_line, self._started = quiet, 0.0, dict[str, tuple[float, int]]()
        self._recent = defaultdict[str, deque[Any]](lambda: deque(maxlen=WAIT_WINDOW))
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, step: Any, steps: int, best: float) -> None:
        """Show a finished step.

        Args:
            stage: that is trained.
            step: `training.step.Step`.
            steps: of the stage.
            best: validation score so far; negative if there is none.
        """
        if self._quiet:
            return
        started, first = self._started.setdefault(stage, (time.monotonic() - step.seconds, step.step - 1))
        speed = (step.step - first) / max(time.monotonic() - started, 1e-9)
        recent = self._recent[stage]
        recent.append(step)
        wait = sum(one.wait for one in recent) / max(sum(one.seconds for one in recent), 1e-9)
        values: dict[str, Any] = {
            "loss": f"{step.loss:.3f}",
            "val": f"{best:.1%}" if best >= 0 else "-",
            "speed": f"{speed:.1f} steps/s  {speed * step.images:.0f} images/s",
            "wait": f"{wait:.0%}",
        }
        if err.is_terminal:
            self._draw(stage, step.step, steps, values)
        elif time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES or step.step == steps:
            self._last_line = time.monotonic()
            left = time.strftime("%H:%M:%S", time.gmtime((steps - step.step) / speed))
            err.print(
                f"{stage:8} {step.step}/{steps}  loss {values['loss']}  best val {values['val']}  "
                f"{values['speed']}  data wait {values['wait']}  {left} left",
                soft_wrap=True,
            )

    def close(self) -> None:
        """Restore the terminal."""
        if self._bar:
            self._bar.stop()

    def _draw(self, stage: str, step: int, steps: int, values: dict[str, Any]) -> None:
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
            self._tasks[stage] = self._bar.add_task(stage, total=steps, **values)
        self._bar.update(self._tasks[stage], completed=step, **values)


def configure_logging(folder: Path | None, *, verbose: bool, quiet: bool, first: bool = True) -> None:
    """Log to stderr, and with debug messages and tracebacks to `run.log` of `folder`.

    Of several processes only the `first` logs, because the others have the same messages.
    """
    log.setLevel(logging.DEBUG)
    close_logging()
    log.propagate = False
    if not first:
        log.addHandler(logging.NullHandler())
        return
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    stderr.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(stderr)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(folder / "run.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)


def close_logging() -> None:
    """Close the handlers of `configure_logging`."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()


def report_error(problem: BaseException, *, as_json: bool, verbose: bool, resume: str = "") -> int:
    """Print what ended the command; the exit code.

    Args:
        problem: the exception.
        as_json: whether it is printed on stdout as JSON, too.
        verbose: whether an unexpected exception is raised again, for its traceback.
        resume: the command that continues.
    """
    log.debug("%s", "".join(traceback.format_exception(problem)))
    if isinstance(problem, StillroomError | Stopped) and problem.told:
        return int(problem.exit)
    if isinstance(problem, Stopped):
        again = f"; the same command resumes: {resume}" if resume else ""
        err.print(f"stopped, everything is saved{again}", markup=False)
        return int(problem.exit)
    if isinstance(problem, StillroomError):
        if as_json:
            out.print_json(json.dumps({"error": problem.as_dict()}))
        err.print(str(problem), markup=False, soft_wrap=True)
        return int(problem.exit)
    if verbose:
        raise problem
    last = traceback.extract_tb(problem.__traceback__)[-1]
    err.print(
        f"SR-0000 internal error: {type(problem).__name__}: {problem}\n"
        f"  why    {Path(last.filename).name}, line {last.lineno}\n"
        "  effect stopped; saved files are intact\n"
        "  fix    repeat the command with -v and report the traceback in the issue tracker",
        markup=False,
        soft_wrap=True,
    )
    return int(Exit.FAILED)


def print_result(found: RunResult, *, as_json: bool, quiet: bool, alone: bool) -> None:
    """Print the results of a run: to stdout, or to stderr if it failed and its error follows.

    Args:
        found: its outcome.
        as_json: JSON instead of a table, for a single run.
        quiet: whether a failed run prints no results.
        alone: whether it is the only seed.
    """
    run = RunDir(found.folder)
    metrics, task = run.metrics, run.info.get("task")
    if found.failures:
        if metrics and not quiet:
            err.print(tables.results(metrics, task))
    elif not as_json:
        out.print(tables.results(metrics, task))
        for line in (tables.verdict(found.folder), tables.deployment(metrics)):
            if line:
                out.print(line, markup=False, soft_wrap=True, highlight=False)
        out.print(f"{found.folder}/report.html", markup=False)
    elif alone:
        out.print_json(json.dumps({"folder": str(found.folder), "metrics": metrics}))


def print_multi_seed(folder: Path, *, as_json: bool, failed: bool) -> None:
    """Print the results over the seeds in `folder`: to stdout, or to stderr if a seed failed."""
    from stillroom.report import multi_seed, multi_seed_page

    found, where = multi_seed.read(folder), err if failed else out
    if found.measured and not as_json:
        where.print(tables.multi_seed(found))
        where.print(multi_seed_page.verdict(found)[1], markup=False)
        where.print(f"{folder}/report.html", markup=False)
    elif found.measured and not failed:
        where.print_json(json.dumps({"folder": str(folder), "metrics": found.metrics()}))


def print_plan(found: Mapping[str, Any]) -> None:
    """Print the costs that `diagnostics.cost.plan` measured: of a training step, of each stage, and of the cache."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("training step", "ms", "10 to 90 %", "images/s", "data wait", "peak memory"):
        table.add_column(column, justify="left" if column == "training step" else "right", no_wrap=True)
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
    if target := found["target"]:
        out.print(f"deployment limits {target['limits']} on {target['where']}:", markup=False)
        out.print(tables.candidates(target["candidates"]))
    teacher, disk = found["teacher"], found["disk_gb"]
    out.print(f"teacher outputs are {MODES[teacher['mode']]}, because {teacher['why']}", markup=False)
    if compiled := found["compile"]:
        verdict = "saves" if compiled["saves"] > 0 else "loses"
        out.print(
            f"torch.compile makes a step {compiled['speedup']:g} times as fast after {compiled['start']:.0f} s to "
            f"compile, and so {verdict} {abs(compiled['saves']):.0f} s per training (train.compile)",
            markup=False,
        )
    out.print(
        f"disk: checkpoints {disk['checkpoints']:g} GB, a cache of {teacher['entries']:,} teacher outputs "
        f"({teacher['num_views']} views per image) {disk['cache']:g} GB; {disk['free']:g} GB are free",
        markup=False,
    )


def print_cache(found: Mapping[str, Any]) -> None:
    """Print what `stillroom label` added to the cache."""
    size = f"{found['entries']:,} teacher outputs, {found['bytes'] / 2**20:.1f} MB"
    difference = found["max_difference"]
    audit = "" if difference is None else f"; {found['audited']:.0%} recomputed, largest difference {difference:.1g}"
    out.print(f"{size}, {found['added']:,} of them new{audit}", markup=False)
    out.print(found["folder"], markup=False)

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

from stillroom.cli import tables
from stillroom.errors import Exit, StillroomError, Stopped
from stillroom.io.run_dir import RunDir

if TYPE_CHECKING:
    from stillroom.pipeline.resume import RunResult

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
    if isinstance(problem, StillroomError | Stopped) and problem.told:
        return int(problem.exit)
    if isinstance(problem, Stopped):
        again = f"; the same command goes on from there: {resume}" if resume else ""
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
        f"SR-0000 a fault of this program: {type(problem).__name__}: {problem}\n"
        f"  why    {Path(last.filename).name}, line {last.lineno}\n"
        "  effect stopped; what was saved is intact\n"
        "  fix    give the command again with -v and send its traceback to the issue tracker",
        markup=False,
        soft_wrap=True,
    )
    return int(Exit.FAILED)


def result(found: RunResult, *, as_json: bool, quiet: bool, alone: bool) -> None:
    """The figures of a run: to stdout, or to stderr where the run fell short and its failure follows.

    Args:
        found: its outcome.
        as_json: JSON instead of a table, where there is one run.
        quiet: whether a run that fell short shows no figures.
        alone: whether it is the only seed.
    """
    run = RunDir(found.folder)
    metrics, task = run.metrics, run.info.get("task")
    if found.failures:
        if metrics and not quiet:
            err.print(tables.results(metrics, task))
    elif not as_json:
        out.print(tables.results(metrics, task))
        if line := tables.target(metrics):
            out.print(line, markup=False)
        out.print(f"{found.folder}/report.html", markup=False)
    elif alone:
        out.print_json(json.dumps({"folder": str(found.folder), "metrics": metrics}))


def several(folder: Path, *, as_json: bool, failed: bool) -> None:
    """What the seeds in `folder` came to; beside a failure it is no result, and goes where failures go."""
    from stillroom.report import seeds, spread

    found, where = seeds.read(folder), err if failed else out
    if found.measured and not as_json:
        where.print(tables.spread(found))
        where.print(spread.verdict(found)[1], markup=False)
        where.print(f"{folder}/report.html", markup=False)
    elif found.measured and not failed:
        where.print_json(json.dumps({"folder": str(folder), "metrics": found.metrics()}))


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
    if target := found["target"]:
        out.print(f"a budget of {target['limits']} on {target['where']}:", markup=False)
        out.print(tables.candidates(target["candidates"]))
    teacher, disk = found["teacher"], found["disk_gb"]
    out.print(f"the teacher is asked {teacher['asked']}, because {teacher['why']}", markup=False)
    if compiled := found["compile"]:
        verdict = "saves" if compiled["saves"] > 0 else "loses"
        out.print(
            f"torch.compile makes a step {compiled['speedup']:g} times as fast after {compiled['start']:.0f} s, and so "
            f"{verdict} {abs(compiled['saves']):.0f} s of a training (train.compile)",
            markup=False,
        )
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

"""The five lines: an experiment from Python, and a finished one opened again."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

from stillroom.config import recipe
from stillroom.config.schema import Recipe
from stillroom.distributed.processes import processes
from stillroom.distributed.signals import Signals
from stillroom.pipeline import run as pipeline
from stillroom.pipeline import seeds as seed_runs
from stillroom.pipeline.finished import FinishedRun
from stillroom.pipeline.seeds import MultiSeedRun
from stillroom.training.step import Step

Section = str | Mapping[str, Any]


@overload
def distill(*, teacher: Section, student: Section, data: Section, seeds: None = None, **more: Any) -> FinishedRun: ...


@overload
def distill(
    *, teacher: Section, student: Section, data: Section, seeds: int | Sequence[int], **more: Any
) -> FinishedRun | MultiSeedRun: ...


def distill(
    *,
    teacher: Section,
    student: Section,
    data: Section,
    methods: str | Sequence[str | Mapping[str, Any]] = ("hinton",),
    seeds: int | Sequence[int] | None = None,
    folder: str | Path | None = None,
    devices: int | Literal["auto"] = "auto",
    **sections: Any,
) -> FinishedRun | MultiSeedRun:
    """Train `student` to imitate `teacher` on `data`; export, verify, measure and report.

    A string is short for a section's first key. Every other section of a recipe may be given by its name, as a
    dictionary: `train={"epochs": 5}`. The same call again resumes, or opens what is done.

    Args:
        teacher: `resnet56`, `timm/NAME`, `torchvision/NAME`, `package.module:Name`, or a `[teacher]` section.
        student: likewise.
        data: `digits`, a path, or a `[data]` section.
        methods: "auto", names, or `[[methods]]` sections.
        seeds: how many, from 0 on, or which ones; with several, one teacher teaches a student for each.
        folder: where to write; `runs/NAME` by default.
        devices: processes; "auto" is every accelerator, or one process on a CPU. Each runs the calling program from
            its beginning, and this process, which starts them, ends with them.
        **sections: the rest of a recipe.

    Returns:
        The run; for several seeds, all of them with their spread.

    Raises:
        StillroomError: what is wrong, why, what follows and how to mend it. Where it is one seed's, the others are done
            by then, and `stillroom.MultiSeedRun(folder)` opens them.
    """
    raw = {
        "teacher": teacher,
        "student": student,
        "data": data,
        "methods": methods if isinstance(methods, str) else list(methods),
    } | sections
    if seeds is not None:
        raw["seeds"] = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    return run(recipe.read(None, raw), folder, devices=devices)


def run(
    what: Recipe, folder: str | Path | None = None, *, devices: int | Literal["auto"] = "auto", progress: Any = None
) -> FinishedRun | MultiSeedRun:
    """Do what a recipe says."""
    signals = Signals()
    main = threading.current_thread() is threading.main_thread()  # nobody else may answer signals
    place = Path(folder) if folder is not None else Path("runs") / what.name
    with signals.listen() if main else nullcontext(), processes(devices, folder=place) as engine:
        do = partial(pipeline.run, engine=engine, signals=signals, progress=progress or _silent)
        for failure in seed_runs.run(what, place, do, writes=engine.first):
            raise failure
    return FinishedRun(place) if len(what.seeds) == 1 else MultiSeedRun(place)


def open(folder: str | Path) -> FinishedRun:
    """A finished run; `stillroom.MultiSeedRun(folder)` opens those of several seeds."""
    return FinishedRun(folder)


def read_recipe(source: str | Path | None = None, **overrides: Any) -> Recipe:
    """A recipe from a file or by its built-in name, checked whole."""
    return recipe.read(source, overrides)


def _silent(stage: str, step: Step, steps: int, best: float) -> None: ...

"""The five lines: an experiment from Python, and a finished one opened again."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from stillroom import pipeline, recipe
from stillroom.engine import Engine, Signals
from stillroom.reopen import Finished
from stillroom.sections import Recipe
from stillroom.train import Step


def distill(
    *,
    teacher: str | Mapping[str, Any],
    student: str | Mapping[str, Any],
    data: str | Mapping[str, Any],
    methods: str | Sequence[str | Mapping[str, Any]] = ("hinton",),
    folder: str | Path | None = None,
    devices: int | Literal["auto"] = "auto",
    **sections: Any,
) -> Finished:
    """Train `student` to imitate `teacher` on `data`; export, verify, measure and report.

    A string is short for a section's first key. Every other section of a recipe may be given by its name, as a
    dictionary: `train={"epochs": 5}`. The same call again resumes, or opens what is done.

    Args:
        teacher: `resnet56`, `timm/NAME`, `torchvision/NAME`, `package.module:Name`, or a `[teacher]` section.
        student: likewise.
        data: `digits`, a path, or a `[data]` section.
        methods: "auto", names, or `[[methods]]` sections.
        folder: where to write; `runs/NAME` by default.
        devices: processes; "auto" is every accelerator, or one process on a CPU.
        **sections: the rest of a recipe.

    Raises:
        Failure: what is wrong, why, what follows and how to mend it.
    """
    raw = {
        "teacher": teacher,
        "student": student,
        "data": data,
        "methods": methods if isinstance(methods, str) else list(methods),
    } | sections
    return run(recipe.read(None, raw), folder, devices=devices)


def run(
    what: Recipe, folder: str | Path | None = None, *, devices: int | Literal["auto"] = "auto", progress: Any = None
) -> Finished:
    """Do what a recipe says."""
    signals = Signals()
    main = threading.current_thread() is threading.main_thread()  # nobody else may answer signals
    place = Path(folder) if folder is not None else Path("runs") / what.name
    with signals.listen() if main else nullcontext():
        pipeline.run(what, place, engine=Engine(devices), signals=signals, progress=progress or _silent)
    return Finished(place)


def open(folder: str | Path) -> Finished:
    """A finished run."""
    return Finished(folder)


def read_recipe(source: str | Path | None = None, **overrides: Any) -> Recipe:
    """A recipe from a file or by its built-in name, checked whole."""
    return recipe.read(source, overrides)


def _silent(stage: str, step: Step, steps: int, best: float) -> None: ...

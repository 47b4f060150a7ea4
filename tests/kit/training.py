"""A small real training in one process: digits at 8 px, a resnet8 taught by a fixed resnet14."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from stillroom.config import recipe, schema
from stillroom.config.schema import Augment, Training
from stillroom.data import sampling
from stillroom.data.dataset import Dataset
from stillroom.data.loader import Loader
from stillroom.distributed.engine import Engine
from stillroom.distributed.signals import Signals
from stillroom.io.run_dir import RunDir
from stillroom.matching import method_setup
from stillroom.models import create_model
from stillroom.stages import build
from stillroom.tasks.classification import Classification
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.training.context import RunContext
from stillroom.training.distiller import Distiller
from stillroom.training.fit import FitData, fit
from stillroom.training.loop import train
from stillroom.training.state import State
from stillroom.training.step import Step

TRAINING = Training(steps=12, batch=32, lr=0.05, optimizer="sgd", precision="float32", ema_decay=0.9, num_evals=3)
AUGMENT = Augment(shift=0.1, rotate=10)


def digits() -> Dataset:
    return build.build_data(schema.Data(source="digits", size=8))


def teacher(classes: int = 10) -> FrozenTeacher:
    torch.manual_seed(7)
    return FrozenTeacher(create_model("resnet14", classes=classes, channels=1, size=8))


fixed = teacher


def learner(methods: dict[str, Any] | None = None, *, student: Any = None, seed: int = 0) -> Distiller:
    """A student with its methods set up; hinton unless others are given."""
    torch.manual_seed(seed)
    student = student or create_model("resnet8", classes=10, channels=1, size=8)
    schema = [{"name": name} | arguments for name, arguments in (methods or {"hinton": {}}).items()]
    asked = recipe.check({"data": {"source": "digits"}, "teacher": "resnet14", "student": "resnet8", "methods": schema})
    images = sampling.sample_images(digits().splits["train"], method_setup.NUM_IMAGES)
    taught = method_setup.build_methods(asked.methods, student, teacher(), images, seed=seed)
    return Distiller(student, Classification(), taught.methods, taught.weights | {"task": 1.0})


def steps(
    one: Distiller,
    config: Training = TRAINING,
    *,
    state: State | None = None,
    until: int | None = None,
    taught: bool = True,
    teacher: Any = None,
    augment: Augment = AUGMENT,
) -> tuple[State, list[Step]]:
    """Train from `state` to step `until`, taught by `teacher`, or else by the fixed one."""
    state = state or State.fresh(one, config, scaled=False)
    batches = Loader(digits().splits["train"], batch=config.batch, seed=0, augment=augment)
    total = config.steps or 1
    found = []
    speaker = (teacher or fixed()) if taught else None
    for step in train(one, speaker, batches, config, state, Engine(1), steps=total, seed=0):
        found.append(step)
        if step.step == until:
            break
    return state, found


def stage(folder: Path, one: Distiller, config: Training = TRAINING, *, progress: Any = None) -> RunDir:
    """A whole stage in a run folder."""
    run = RunDir.open(folder, {}, "")
    data = digits()
    try:
        fit(
            "student",
            one,
            teacher(),
            FitData(train=data.splits["train"], val=data.splits["val"], classes=data.classes, augment=AUGMENT),
            config,
            seed=0,
            context=RunContext(run, Engine(1), Signals(), progress or (lambda *_: None)),
        )
    finally:
        run.close()
    return run


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def furthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest difference between two state dicts."""
    return max((a[key].double() - b[key].double()).abs().max().item() for key in a if a[key].numel())


replace = dataclasses.replace

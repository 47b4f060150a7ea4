"""Stillroom as `stillroom run` does it: the stage itself, with its log, between two looks at val."""

from __future__ import annotations

import tempfile
from pathlib import Path

from job import DECAY, LR, SHIFT, SIDE, TEMPERATURE, VIEWS, WEIGHT, Clock, Enough, Job

from stillroom.config import recipe
from stillroom.config.schema import Recipe
from stillroom.distributed.engine import Engine
from stillroom.distributed.signals import Signals
from stillroom.io.run_dir import RunDir
from stillroom.pipeline.prepare import prepare
from stillroom.stages.train import Trainer
from stillroom.teachers.source import TeacherSource
from stillroom.training.context import RunContext

EPOCHS = 30


def asked(job: Job, *, cached: bool) -> Recipe:
    """The recipe, with the precision that the contestants have."""
    raw = {
        "name": "throughput",
        "seeds": [job.seed],
        "data": {"source": "images:Decoded", "path": str(job.folder)},
        "augment": {"flip": True, "shift": SHIFT / SIDE, "num_views": VIEWS[job.precision]},
        "teacher": {"network": "resnet56", "weights": str(job.weights)},
        "student": "resnet20",
        "methods": [{"name": "hinton", "temperature": TEMPERATURE, "weight": WEIGHT}],
        "train": {
            "epochs": EPOCHS,
            "batch": job.batch,
            "optimizer": "sgd",
            "lr": LR,
            "weight_decay": DECAY,
            "precision": job.precision,
        },
        "cache": {"use": "always" if cached else "never", "path": str(job.folder / "caches"), "bits": 16},
        "export": [],
    }
    return recipe.check(raw)


def run(job: Job, *, taught: bool, cached: bool = False) -> dict:
    clock, one = Clock(job), asked(job, cached=cached)
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir.open(Path(folder) / "run", one.as_dict(), one.toml())
        engine = Engine()
        progress = lambda _stage, step, _steps, _best: clock.tick(step.loss)  # noqa: E731
        trainer = Trainer(
            experiment=prepare(one, engine),
            context=RunContext(run, engine, Signals(), progress),
            source=TeacherSource(None, lambda *_: None),
        )
        try:
            trainer.train_student("student", trainer.train_teacher() if taught else None)
        except Enough:
            return clock.report()
        finally:
            run.close()
    raise RuntimeError("the training ended before the clock did")

"""One stage of a run: a network is trained, watched on the val split, saved, and brought back when it is interrupted.

This is the `for` loop around `train`. Which teacher and which methods a stage has is decided before it comes here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from stillroom.config.schema import Augment, Training
from stillroom.data.dataset import Split
from stillroom.data.loader import Loader
from stillroom.distributed.engine import Engine
from stillroom.distributed.signals import Signals
from stillroom.errors import Exit, Stopped
from stillroom.evaluation.validate import validate
from stillroom.io import checkpoint
from stillroom.io.run_dir import RunDir
from stillroom.tasks.task import Task
from stillroom.teachers.teacher import Teacher
from stillroom.training.distiller import Distiller
from stillroom.training.errors import TrainingDiverged
from stillroom.training.loop import initial_state, train
from stillroom.training.state import State
from stillroom.training.step import Diverged, Step
from stillroom.types import Output

log = logging.getLogger("stillroom")

RESTORES = 2  # times that training may go back because its numbers were not finite

Progress = Callable[[str, Step, int, float], None]
"""Told after every step: the stage, the step, how many there are, the best score on val so far."""

PredictFn = Callable[[torch.Tensor], Output]
"""Anything that says something of images [B, C, H, W] in 0..1."""


def fit(
    stage: str,
    learner: Distiller,
    teacher: Teacher | None,
    *,
    train_split: Split,
    val_split: Split,
    classes: tuple[str, ...],
    training: Training,
    augment: Augment,
    seed: int,
    engine: Engine,
    run: RunDir,
    signals: Signals,
    progress: Progress,
    judge: PredictFn | None = None,
) -> None:
    """Train `learner`; its student ends with the weights that were best on val.

    Resumes from the stage's newest checkpoint. A signal is answered after the step it came in. See `score`
    for `judge`.

    Raises:
        Stopped: by a signal; everything is saved.
        TrainingDiverged: SR-E601 the numbers kept becoming infinite or undefined.
    """
    steps = training.total_steps(len(train_split))
    batches = Loader(
        train_split, batch=training.batch, seed=seed, augment=augment, rank=engine.rank, world=engine.world
    )
    state = initial_state(learner, training, engine)
    _resume(stage, state, run, engine)
    looks = evaluation_steps(steps, training.evaluations)
    stop, saved_at = False, 0.0

    def old() -> bool:
        return time.monotonic() - saved_at > training.checkpoint_seconds

    def due(step: int) -> bool:
        nonlocal stop
        stop = engine.any(signals.caught is not None)
        return stop or step in looks or old()

    while state.step < steps:
        saved_at = time.monotonic()
        try:
            with signals.held():
                for step in train(learner, teacher, batches, training, state, engine, steps=steps, seed=seed, due=due):
                    run.append("steps.jsonl", {"stage": stage} | asdict(step))
                    if step.step - 1 in state.skipped and step.step - 1 not in state.avoid:
                        run.warn(f"{stage}: step {step.step} was not finite and was skipped; terms {step.terms}")
                    here = step.step == state.step  # else its numbers came late, and the weights are further on
                    if here and step.step in looks:
                        _look(stage, state, learner.task, val_split, classes, training.batch, engine, run, judge)
                    if here and (stop or old()):
                        _save(stage, state, run)
                        saved_at = time.monotonic()
                    progress(stage, step, steps, state.best_score)
                    if here and stop:
                        engine.barrier()  # until the checkpoint is there
                        raise Stopped(signals.caught or Exit.TERMINATED)
        except Diverged as trouble:
            _go_back(stage, state, trouble, run, engine)
    learner.student.load_state_dict(state.best)
    run.note(last_step=state.step)


def evaluation_steps(steps: int, times: int) -> set[int]:
    """When to look at val: `times` looks, evenly spread, the last one after the last step."""
    return {max(1, round(steps * (i + 1) / times)) for i in range(times)}


def _look(
    stage: str,
    state: State,
    task: Task,
    split: Split,
    classes: tuple[str, ...],
    batch: int,
    engine: Engine,
    run: RunDir,
    judge: PredictFn | None,
) -> None:
    found = validate(state.average, task, split, classes, batch, engine, judge)
    best = state.consider(found)
    run.append("evals.jsonl", {"stage": stage, "step": state.step, "split": split.name, "score": found, "best": best})


def _save(stage: str, state: State, run: RunDir) -> None:
    if run.writes:
        checkpoint.save(run.checkpoints(stage), state.step, state.parts(), state.scalars())
        run.note(last_step=state.step)


def _resume(stage: str, state: State, run: RunDir, engine: Engine) -> None:
    """Take up the newest checkpoint, or make the first one, so that there is always one to go back to."""
    engine.barrier()
    saved = checkpoint.everyone(run.checkpoints(stage))
    if saved:
        state.load(*checkpoint.load(saved[-1]))
        log.info("%s: resumed at step %d", stage, state.step)
    run.rewind(stage, state.step)
    engine.barrier()
    if not saved:
        _save(stage, state, run)


def _go_back(stage: str, state: State, trouble: Diverged, run: RunDir, engine: Engine) -> None:
    """Return to the last checkpoint with half the learning rate, and pass over the batches that spoilt it."""
    restores, scale, avoid = state.restores + 1, state.lr_scale / 2, [*state.avoid, *trouble.skipped]
    if restores > RESTORES:
        where = run.folder / "debug" / f"nonfinite-{trouble.step.step:06d}"
        if run.writes:
            _bundle(stage, state, trouble, run)
        engine.barrier()
        raise TrainingDiverged(stage=stage, step=trouble.step.step, terms=trouble.step.terms, folder=where)
    engine.barrier()
    state.load(*checkpoint.load(checkpoint.everyone(run.checkpoints(stage))[-1]))
    engine.barrier()  # everybody has read before the first process writes over it
    state.restores, state.lr_scale, state.avoid = restores, scale, sorted(set(avoid))
    run.rewind(stage, state.step)
    _save(stage, state, run)
    engine.barrier()
    run.warn(
        f"{stage}: too many steps were not finite; back to step {state.step} with the learning rate times {scale:g}"
    )


def _bundle(stage: str, state: State, trouble: Diverged, run: RunDir) -> None:
    """What is needed to see the failure again: the weights before it, and which batch of which stage it was."""
    facts: dict[str, Any] = {"stage": stage, "batch": trouble.step.step - 1} | asdict(trouble.step)
    checkpoint.save(
        run.folder / "debug" / f"nonfinite-{trouble.step.step:06d}", state.step, state.parts(), state.scalars() | facts
    )

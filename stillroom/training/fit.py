"""One training, start to end: resumed from its newest checkpoint, evaluated on val, saved, the best weights kept.

This is the `for` loop around `training.loop.train`. Teacher and methods are decided before it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from stillroom.config.schema import Augment, Training
from stillroom.data.dataset import Split
from stillroom.data.loader import Loader
from stillroom.errors import Exit, Stopped
from stillroom.evaluation.validate import validate
from stillroom.io import checkpoint
from stillroom.teachers.teacher import Teacher
from stillroom.training.context import RunContext
from stillroom.training.distiller import Distiller
from stillroom.training.errors import TrainingDiverged
from stillroom.training.loop import initial_state, train
from stillroom.training.state import State
from stillroom.training.step import Diverged, Step
from stillroom.types import PredictFn

log = logging.getLogger("stillroom")

MAX_RESTORES = 2  # returns to a checkpoint because of non-finite numbers


@dataclass(frozen=True, kw_only=True)
class FitData:
    """What a training reads.

    Attributes:
        train: images that gradients come from.
        val: images that choose the checkpoint.
        classes: names in label order.
        augment: of training images.
        reference: predicts the targets of val images where none has a label: the teacher; None where they have labels.
    """

    train: Split
    val: Split
    classes: tuple[str, ...]
    augment: Augment
    reference: PredictFn | None = None


def fit(
    stage: str,
    distiller: Distiller,
    teacher: Teacher | None,
    data: FitData,
    training: Training,
    *,
    seed: int,
    context: RunContext,
) -> None:
    """Train `distiller` in place; its student ends with the averaged weights that scored best on val.

    Resumes from the stage's newest checkpoint. A signal is answered after the step during which it came.

    Raises:
        Stopped: by a signal; everything is saved.
        TrainingDiverged: SR-E601 the numbers kept becoming infinite or undefined.
    """
    state = initial_state(distiller, training, context.engine)
    one = _Fit(stage, distiller, teacher, data, training, seed, context, state)
    one.resume()
    while state.step < one.num_steps:
        try:
            with context.signals.held():
                one.run()
        except Diverged as trouble:
            one.restore(trouble)
    distiller.student.load_state_dict(state.best)
    context.run.note(last_step=state.step)


def evaluation_steps(num_steps: int, num_evals: int) -> set[int]:
    """After which steps val is evaluated: evenly spread, the last one after the last step."""
    return {max(1, round(num_steps * (i + 1) / num_evals)) for i in range(num_evals)}


@dataclass
class _Fit:
    """A training in progress."""

    stage: str
    distiller: Distiller
    teacher: Teacher | None
    data: FitData
    training: Training
    seed: int
    context: RunContext
    state: State
    stop: bool = False
    saved_at: float = 0.0
    num_steps: int = field(init=False)
    evals: set[int] = field(init=False)

    def __post_init__(self) -> None:
        self.num_steps = self.training.total_steps(len(self.data.train))
        self.evals = evaluation_steps(self.num_steps, self.training.num_evals)

    def run(self) -> None:
        """Steps to the end, or to a signal."""
        self.saved_at = time.monotonic()
        engine, training = self.context.engine, self.training
        batches = Loader(
            self.data.train,
            batch=training.batch,
            seed=self.seed,
            augment=self.data.augment,
            rank=engine.rank,
            world=engine.world,
        )
        for step in train(
            self.distiller,
            self.teacher,
            batches,
            training,
            self.state,
            engine,
            steps=self.num_steps,
            seed=self.seed,
            due=self._due,
        ):
            self._after(step)

    def resume(self) -> None:
        """Load the newest checkpoint, or save the first one, so that there is always one to go back to."""
        run, engine = self.context.run, self.context.engine
        engine.barrier()
        saved = checkpoint.list_checkpoints(run.checkpoints(self.stage))
        if saved:
            self.state.load(*checkpoint.load(saved[-1]))
            log.info("%s: resumed at step %d", self.stage, self.state.step)
        run.rewind(self.stage, self.state.step)
        engine.barrier()
        if not saved:
            self._save()

    def restore(self, trouble: Diverged) -> None:
        """Return to the last checkpoint with half the learning rate, and skip the batches that were not finite."""
        state, run, engine = self.state, self.context.run, self.context.engine
        restores, scale, avoid = state.restores + 1, state.lr_scale / 2, [*state.avoid, *trouble.skipped]
        if restores > MAX_RESTORES:
            self._give_up(trouble)
        engine.barrier()
        state.load(*checkpoint.load(checkpoint.list_checkpoints(run.checkpoints(self.stage))[-1]))
        engine.barrier()  # all have read before the first process overwrites it
        state.restores, state.lr_scale, state.avoid = restores, scale, sorted(set(avoid))
        run.rewind(self.stage, state.step)
        self._save()
        engine.barrier()
        run.warn(
            f"{self.stage}: too many steps were not finite; back to step {state.step} with the learning rate "
            f"times {scale:g}"
        )

    def _due(self, step: int) -> bool:
        """Whether the caller needs the weights after this step; the same in all processes."""
        self.stop = self.context.engine.any(self.context.signals.caught is not None)
        return self.stop or step in self.evals or self._checkpoint_is_due()

    def _checkpoint_is_due(self) -> bool:
        return time.monotonic() - self.saved_at > self.training.checkpoint_seconds

    def _after(self, step: Step) -> None:
        """Log, evaluate, save, and stop where a signal came."""
        run, state = self.context.run, self.state
        run.append("steps.jsonl", {"stage": self.stage} | asdict(step))
        if step.step - 1 in state.skipped and step.step - 1 not in state.avoid:
            run.warn(f"{self.stage}: step {step.step} was not finite and was skipped; terms {step.terms}")
        current = step.step == state.step  # else its numbers arrived late, and the weights are one step ahead
        if current and step.step in self.evals:
            self._evaluate()
        if current and (self.stop or self._checkpoint_is_due()):
            self._save()
            self.saved_at = time.monotonic()
        self.context.progress(self.stage, step, self.num_steps, state.best_score)
        if current and self.stop:
            self.context.engine.barrier()  # until the checkpoint is written
            raise Stopped(self.context.signals.caught or Exit.TERMINATED)

    def _evaluate(self) -> None:
        data, state = self.data, self.state
        score = validate(
            state.average,
            self.distiller.task,
            data.val,
            data.classes,
            batch=self.training.batch,
            device=self.context.engine.device,
            reference=data.reference,
        )
        best = state.consider(score)
        line = {"stage": self.stage, "step": state.step, "split": data.val.name, "score": score, "best": best}
        self.context.run.append("evals.jsonl", line)

    def _save(self) -> None:
        run, state = self.context.run, self.state
        if run.writes:
            checkpoint.save(run.checkpoints(self.stage), state.step, state.parts(), state.scalars())
            run.note(last_step=state.step)

    def _give_up(self, trouble: Diverged) -> None:
        """Write what reproduces the failure, the weights before it and the number of its batch, and raise."""
        run, state, step = self.context.run, self.state, trouble.step
        folder = run.folder / "debug" / f"nonfinite-{step.step:06d}"
        if run.writes:
            facts: dict[str, Any] = {"stage": self.stage, "batch": step.step - 1} | asdict(step)
            checkpoint.save(folder, state.step, state.parts(), state.scalars() | facts)
        raise TrainingDiverged(stage=self.stage, step=step.step, terms=step.terms, folder=folder)

"""The training loop, and nothing else. It yields after every step; whoever iterates decides what to do.

    for step in train(learner, teacher, batches, config, state, engine, steps=1000, seed=0):
        run.append("steps.jsonl", ...)          # the caller logs, evaluates, saves, stops, draws

No hooks, callbacks or trainer class: a `for` loop is the extension point.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stillroom.engine import Engine, precision_for
from stillroom.learner import Learner
from stillroom.sections import Training
from stillroom.state import State
from stillroom.teachers.teacher import Teacher
from stillroom.types import Batch, Terms
from stillroom.weighting import label_of

SKIPS, WINDOW = 3, 100  # more skipped steps than this among that many: something is wrong for good


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one step cost and how it went. Numbers only, ready to be a line of JSON."""

    step: int
    loss: float
    terms: dict[str, float]  # raw
    weights: dict[str, float]  # what they were multiplied by in this step
    grad_norm: float
    lr: float
    seconds: float
    wait: float  # of those, seconds that training waited for data
    skipped: bool  # the weights were left as they were


class Diverged(FloatingPointError):
    """Too many steps were not finite; `skipped` says which."""

    def __init__(self, step: Step, skipped: list[int]):
        self.step, self.skipped = step, skipped
        super().__init__(f"step {step.step}: not finite, gradient norm {step.grad_norm}, terms {step.terms}")


def learning_rate(step: int, steps: int, config: Training) -> float:
    """Linear warm-up, then a cosine to zero. A pure function of the step, so there is no scheduler to save."""
    warm = round(config.warmup * steps)
    if step < warm:
        return config.lr * (step + 1) / (warm + 1)
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def train(
    learner: Learner,
    teacher: Teacher | None,
    batches: Callable[[int], Generator[Batch]],
    config: Training,
    state: State,
    engine: Engine,
    *,
    steps: int,
    seed: int,
) -> Iterator[Step]:
    """Train `learner` in place, yielding a `Step` after each step from `state.step` to `steps`.

    A step whose loss or gradient is not finite is skipped: the weights never meet it.

    Args:
        learner: what is trained.
        teacher: None when nothing is imitated.
        batches: `batches(n)` starts at the n-th batch of the run; the same n gives the same batch, always.
        config: how.
        state: fresh, or loaded from a checkpoint to resume.
        engine: the processes that do it together.
        steps: how many optimiser steps the whole run has.
        seed: of dropout and the like. Every step seeds itself, so there is no generator to save.

    Raises:
        Diverged: more than 3 of the last 100 steps were not finite.
    """
    model = engine.wrap(learner)
    learner.train()
    with closing(batches(state.step)) as stream:
        while state.step < steps:
            started = time.perf_counter()
            batch = next(stream).to(engine.device)
            wait = time.perf_counter() - started
            torch.manual_seed(_seed(seed, state.step, engine.rank))
            lr = learning_rate(state.step, steps, config) * state.lr_scale
            before = [buffer.clone() for buffer in learner.buffers()]
            progress = state.step / steps
            terms, norm = _gradients(model, learner, teacher, batch, config, state, engine, progress)
            weights = learner.weights(progress)
            values, grad_norm = _to_host(terms, norm, engine)
            # With a scaler an infinite gradient is ordinary: it skips the step and lowers its scale.
            finite = all(map(math.isfinite, values.values())) and (
                math.isfinite(grad_norm) or state.scaler.is_enabled()
            )
            skip = not finite or state.step in state.avoid
            if skip:
                _restore(learner, before)
            else:
                _advance(state, lr, config)
            state.optimizer.zero_grad(set_to_none=True)
            if teacher:
                teacher.update(learner, state.step)
            state.step += 1
            step = Step(
                step=state.step,
                loss=sum(weights[label_of(name)] * value for name, value in values.items()),
                terms=values,
                weights=weights,
                grad_norm=grad_norm,
                lr=lr,
                seconds=time.perf_counter() - started,
                wait=wait,
                skipped=skip,
            )
            _give_up_if_hopeless(state, step, finite)
            yield step


def _gradients(
    model: nn.Module,
    learner: Learner,
    teacher: Teacher | None,
    batch: Batch,
    config: Training,
    state: State,
    engine: Engine,
    progress: float,
) -> tuple[Terms, Tensor]:
    """Fill in the gradients of the mean over the batch; return the raw terms and the norm before clipping."""
    dtype = precision_for(engine.device, config.precision)
    total: Terms = {}
    for part, micro in enumerate(batch.split(config.accumulate)):
        with torch.autocast(engine.device.type, dtype, enabled=dtype != torch.float32):
            said = teacher((micro.images,), micro.keys, learner.teacher_taps) if teacher else None
            with engine.without_sync(model, part < config.accumulate - 1):
                terms = model(micro, said, progress)
                engine.backward(state.scaler.scale(learner.total(terms, progress) / config.accumulate))
        for name, value in terms.items():
            total[name] = total.get(name, 0) + value.detach() / config.accumulate
    state.scaler.unscale_(state.optimizer)
    return total, nn.utils.clip_grad_norm_(learner.parameters(), config.clip)


def _advance(state: State, lr: float, config: Training) -> None:
    """One optimiser step, and the average a little towards it."""
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.update_average(config.average)


@torch.no_grad()
def _restore(learner: Learner, before: list[Tensor]) -> None:
    """Batch norm remembers what it saw in the forward pass; a step that is skipped must not leave its mark there."""
    for buffer, old in zip(learner.buffers(), before, strict=True):
        buffer.copy_(old)


def _to_host(terms: Terms, norm: Tensor, engine: Engine) -> tuple[dict[str, float], float]:
    """The numbers, averaged over processes: one copy, the step's only wait for the device."""
    *values, grad_norm = engine.mean(torch.stack([*terms.values(), norm]).float()).tolist()
    return dict(zip(terms, values, strict=True)), grad_norm


def _give_up_if_hopeless(state: State, step: Step, finite: bool) -> None:
    """Remember a step that was not finite, and raise when there were too many lately."""
    if finite:
        return
    state.skipped.append(step.step - 1)
    recent = [n for n in state.skipped if step.step - n <= WINDOW and n not in state.avoid]
    if len(recent) > SKIPS:
        raise Diverged(step, recent)


def _seed(seed: int, step: int, rank: int) -> int:
    """One number for the step, so that dropout is the same after a resume, and another in every process."""
    return ((seed * 1_000_003 + step) * 1_000_003 + rank) % 2**63

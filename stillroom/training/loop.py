"""The training loop, and nothing else. It yields every step, in order; the caller decides what to do with it.

    for step in train(learner, teacher, batches, config, state, engine, steps=1000, seed=0):
        run.append("steps.jsonl", ...)          # the caller logs, evaluates, saves, stops, draws

No hooks, callbacks or trainer class: a `for` loop is the extension point. Nothing in a step waits for the device: what
depends on a step's numbers is decided there, and the numbers are read when the next step is already on its way.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from stillroom.config.schema import Training
from stillroom.distributed.engine import Engine
from stillroom.distributed.precision import precision_for
from stillroom.models.network import Network
from stillroom.teachers.teacher import Teacher
from stillroom.training.compile import compile_student
from stillroom.training.distiller import Distiller
from stillroom.training.loss_weights import EVERY
from stillroom.training.state import State
from stillroom.training.step import AsyncScalars, Diverged, PendingStep, Step
from stillroom.types import Batch, Terms

SKIPS, WINDOW = 3, 100  # more skipped steps than this among that many: something is wrong for good
AHEAD = {"cpu": 0}  # steps that a device is given before the numbers of the last one are read; 1 where not named


def initial_state(learner: Distiller, config: Training, engine: Engine) -> State:
    """A training before its first step, on the engine's device."""
    scaled = precision_for(engine.device, config.precision) == torch.float16
    return State.fresh(learner.to(engine.device), config, scaled=scaled)


def learning_rate(step: int, steps: int, config: Training) -> float:
    """Linear warm-up, then a cosine to zero. A pure function of the step, so there is no scheduler to save."""
    warm = round(config.warmup_fraction * steps)
    if step < warm:
        return config.lr * (step + 1) / (warm + 1)
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def train(
    learner: Distiller,
    teacher: Teacher | None,
    batches: Callable[[int], Generator[Batch]],
    config: Training,
    state: State,
    engine: Engine,
    *,
    steps: int,
    seed: int,
    due: Callable[[int], bool] = lambda step: True,
) -> Generator[Step]:
    """Train `learner` in place, yielding each `Step` from `state.step` to `steps`.

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
        due: called once after each step: whether the caller needs the weights as they are now.
            Where not, an accelerator's steps may come one late: `state.step` is then ahead of `step.step`.

    Raises:
        Diverged: more than 3 of the last 100 steps were not finite.
    """
    model = engine.wrap(learner)
    learner.train()
    gradients = partial(_gradients, model, learner, teacher, config, state, engine)
    if config.compile:
        with closing(batches(state.step)) as stream:
            once = partial(_rehearse, learner, state, next(stream).to(engine.device), gradients)
        compile_student(cast(Network, learner.student), learner.student_taps, once)
    late = deque[PendingStep]()
    with closing(batches(state.step)) as stream:
        while state.step < steps:
            started = time.perf_counter()
            batch = next(stream).to(engine.device)
            wait = time.perf_counter() - started
            torch.manual_seed(_seed(seed, state.step, engine.rank))
            before = [buffer.clone() for buffer in learner.buffers()]
            progress, avoided = state.step / steps, state.step in state.avoid
            terms, norm = gradients(batch, progress), _length(state)
            numbers = engine.mean(torch.cat([torch.stack([*terms.values(), norm]), learner.weighting.factors()]))
            spoilt = ~numbers.isfinite().all() | avoided
            lr = learning_rate(state.step, steps, config) * state.lr_scale
            _restore(learner, before, spoilt)
            _advance(state, lr, norm, spoilt, config)
            if teacher:
                teacher.update(learner, state.step)
            state.step += 1
            one = PendingStep(
                step=state.step,
                images=len(batch) * engine.world,
                names=list(terms),
                numbers=AsyncScalars(numbers),
                weights=learner.weighting.plain(progress),
                lr=lr,
                wait=wait,
                avoided=avoided,
            )
            late.append(one)
            punctual = due(state.step) or state.step == steps
            for step in _arrived(late, 0 if punctual else AHEAD.get(engine.device.type, 1), started):
                _give_up_if_hopeless(state, step)
                yield step


def _gradients(
    model: nn.Module,
    learner: Distiller,
    teacher: Teacher | None,
    config: Training,
    state: State,
    engine: Engine,
    batch: Batch,
    progress: float,
) -> Terms:
    """Fill in the gradients of the mean over the batch; return the raw terms."""
    dtype = precision_for(engine.device, config.precision)
    total: Terms = {}
    for part, micro in enumerate(batch.split(config.grad_accum_steps)):
        targets = teacher((micro.images,), micro.keys, learner.teacher_taps) if teacher else None
        measure = part == 0 and state.step % EVERY == 0
        precision = torch.autocast(engine.device.type, dtype, enabled=dtype != torch.float32)
        with precision, engine.without_sync(model, part < config.grad_accum_steps - 1):
            terms = model(micro, targets, progress)
            loss = learner.total(terms, progress, measure=measure) / config.grad_accum_steps
            engine.backward(state.scaler.scale(loss))
        for name, value in terms.items():
            total[name] = total.get(name, 0) + value.detach() / config.grad_accum_steps
    return total


def _rehearse(learner: Distiller, state: State, batch: Batch, gradients: Callable[[Batch, float], Terms]) -> None:
    """A step's forward and backward pass that leaves nothing behind: compiling is done in it, and not in a step."""
    before = [buffer.clone() for buffer in learner.buffers()]
    gradients(batch, 0.0)
    _restore(learner, before, torch.tensor(True, device=batch.images.device))
    state.optimizer.zero_grad(set_to_none=True)


def _length(state: State) -> Tensor:
    """The norm of all gradients together, which a scaler no longer enlarges afterwards."""
    state.scaler.unscale_(state.optimizer)
    return nn.utils.get_total_norm([p.grad for p in state.trained if p.grad is not None])


def _advance(state: State, lr: float, norm: Tensor, spoilt: Tensor, config: Training) -> None:
    """One optimiser step with gradients no longer than `clip`, and the average a little towards it.

    A spoilt step leaves the weights alone: a fused optimiser reads `found_inf` on the device, as it does `grad_scale`,
    by which it divides gradients.
    """
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.optimizer.grad_scale = (norm / config.max_grad_norm).clamp(min=1)  # type: ignore[attr-defined]
    state.optimizer.found_inf = spoilt.float()  # type: ignore[attr-defined]
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.update()
    state.update_average(config.ema_decay)


@torch.no_grad()
def _restore(learner: Distiller, before: list[Tensor], spoilt: Tensor) -> None:
    """Batch norm remembers what it saw in the forward pass; a step that is skipped must not leave its mark there."""
    for buffer, old in zip(learner.buffers(), before, strict=True):
        torch.where(spoilt, old, buffer, out=buffer)


def _arrived(late: deque[PendingStep], left: int, started: float) -> list[Step]:
    """Wait for the numbers of all steps but the last `left`; the newest of all began at `started`."""
    ready = max(0, len(late) - left)
    if ready:
        late[ready - 1].numbers.read()
    late[-1].seconds = time.perf_counter() - started
    return [late.popleft().finished() for _ in range(ready)]


def _give_up_if_hopeless(state: State, step: Step) -> None:
    """Remember a step that was not finite, and raise when there were too many lately."""
    # With a scaler an infinite gradient is ordinary: it skips the step and lowers its scale.
    norm_is_well = math.isfinite(step.grad_norm) or state.scaler.is_enabled()
    if norm_is_well and all(map(math.isfinite, step.terms.values())):
        return
    state.skipped.append(step.step - 1)
    recent = [n for n in state.skipped if step.step - n <= WINDOW and n not in state.avoid]
    if len(recent) > SKIPS:
        raise Diverged(step, recent)


def _seed(seed: int, step: int, rank: int) -> int:
    """One number for the step, so that dropout is the same after a resume, and another in every process."""
    return ((seed * 1_000_003 + step) * 1_000_003 + rank) % 2**63

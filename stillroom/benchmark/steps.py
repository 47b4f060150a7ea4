"""How long a training step takes in several variants of a training, measured side by side on real batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from stillroom.benchmark import memory
from stillroom.config.schema import Training
from stillroom.data.loader import Loader
from stillroom.distributed.engine import Engine
from stillroom.teachers.teacher import Teacher
from stillroom.training.distiller import Distiller
from stillroom.training.loop import initial_state, train

ROUNDS, SECONDS = 5, 1.0  # seconds for each training in a round; one step at least
WARM = 2  # steps before any is timed
LOW, HIGH = 10, 90  # percentiles


@dataclass(frozen=True)
class Interval:
    """Seconds: a low, a middle and a high value."""

    low: float = 0.0
    middle: float = 0.0
    high: float = 0.0

    def __mul__(self, times: float) -> Interval:
        return Interval(self.low * times, self.middle * times, self.high * times)

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.middle + other.middle, self.high + other.high)


class TimedTraining:
    """A training that is run a few real steps at a time. The networks it trains are not used for anything else.

    Args:
        learner: what is trained.
        teacher: None for a training on labels alone.
        batches: the images.
        training: how.
        engine: the processes.

    Attributes:
        seconds: of a step, one number a round.
        waits: of those, seconds for data.
        start: seconds before the first step is done, compiling among them.
        peak: bytes of memory at most in any round; None where the system does not report it.
    """

    def __init__(
        self, learner: Distiller, teacher: Teacher | None, batches: Loader, training: Training, engine: Engine
    ):
        self.seconds, self.waits = list[float](), list[float]()
        self.start = 0.0
        self.peak: int | None = None
        self._device = engine.device
        state = initial_state(learner, training, engine)
        self.checkpoint = sum(t.nbytes for part in state.parts().values() for t in part.values())
        self._steps = train(learner, teacher, batches, training, state, engine, steps=10**9, seed=0)

    def take(self, steps: int) -> float:
        """Seconds for so many steps."""
        memory.forget_peak(self._device)
        started = time.perf_counter()
        self._waited = sum(next(self._steps).wait for _ in range(steps))
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - started

    def count(self, steps: int) -> None:
        """A round: so many steps, counted."""
        self.seconds.append(self.take(steps) / steps)
        self.waits.append(self._waited / steps)
        found = memory.peak(self._device)
        self.peak = found if self.peak is None or found is None else max(self.peak, found)

    @property
    def step(self) -> Interval:
        """Seconds of a step: the tenth percentile over the rounds, the median, the ninetieth."""
        low, middle, high = np.percentile(self.seconds, [LOW, 50, HIGH]).tolist()
        return Interval(low, middle, high)

    @property
    def waiting(self) -> float:
        """The share of the time that is spent on waiting for data."""
        return sum(self.waits) / sum(self.seconds)

    def close(self) -> None:
        """Let the loader go."""
        self._steps.close()


def take_turns(trainings: Mapping[str, TimedTraining], engine: Engine) -> None:
    """Time all trainings, a round of each after the other: a machine that is busy for one is busy for all."""

    def length(one: TimedTraining) -> int:
        step = engine.mean(torch.tensor(one.take(1)))  # of all processes: they must take equally many steps
        return max(1, round(SECONDS / float(step)))

    for one in trainings.values():
        one.start = one.take(1)
        one.take(WARM)
    lengths = {name: length(one) for name, one in trainings.items()}
    for _ in range(ROUNDS):
        for name, one in trainings.items():
            one.count(lengths[name])


def time_second_call(function: Callable[[], object]) -> float:
    """Seconds of the second of two calls."""
    function()
    started = time.perf_counter()
    function()
    return time.perf_counter() - started

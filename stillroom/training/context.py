"""What all trainings of a run share: its folder, its processes, its signals, its progress display."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stillroom.distributed.engine import Engine
from stillroom.distributed.signals import Signals
from stillroom.io.run_dir import RunDir
from stillroom.training.step import Step

Progress = Callable[[str, Step, int, float], None]
"""Called after every step with the stage, the step, the number of steps, and the best score on val so far."""


@dataclass(frozen=True)
class RunContext:
    """Where a run writes, which processes do it, what may end it, and who is shown its progress."""

    run: RunDir
    engine: Engine
    signals: Signals
    progress: Progress

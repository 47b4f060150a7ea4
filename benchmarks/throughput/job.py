"""What a contestant is told, and how its steps are timed: the same for all of them."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what the teacher was trained with
TEMPERATURE, WEIGHT = 4.0, 0.9  # labels weigh 1
LR, MOMENTUM, DECAY = 0.1, 0.9, 5e-4
SIDE, SHIFT = 32, 4  # pixels; a crop of a padded image is a shift
VIEWS = {"auto": 2, "float32": 1}  # looks at an image until the first comes again: with 25,000 images, 50,000 answers


class Enough(Exception):
    """All steps are timed."""


@dataclass(frozen=True)
class Job:
    """One contestant in one process.

    Attributes:
        who: a key of `CONTESTANTS` in `contestant.py`.
        precision: "auto" or "float32".
        folder: where the decoded images are, and where the contestant may write.
        weights: the teacher's.
        threads: of torch, and processor cores that the process and its children may use.
        workers: of the data loaders that have any.
        warmup: steps before the clock runs.
        steps: steps that it sees.
    """

    who: str
    precision: str
    folder: Path
    weights: Path
    batch: int
    threads: int
    workers: int
    warmup: int
    steps: int
    seed: int

    @classmethod
    def told(cls) -> Job:
        """From the command line; the process is bound to its cores."""
        said = json.loads(sys.argv[1])
        job = cls(**{**said, "folder": Path(said["folder"]), "weights": Path(said["weights"])})
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.threads])
        torch.set_num_threads(job.threads)
        torch.manual_seed(job.seed)
        return job

    @property
    def device(self) -> torch.device:
        """An accelerator where there is one."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def autocast(self) -> Any:
        """bfloat16 where "auto" finds it, as the house itself decides it."""
        from stillroom.distributed.precision import precision_for

        dtype = precision_for(self.device, self.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    def now(self) -> float:
        """Seconds, when the device has done all that it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


class Clock:
    """Runs from the end of the last step of the warm-up to the end of the last step."""

    def __init__(self, job: Job):
        self.job, self.done, self.started, self.ended = job, 0, 0.0, 0.0
        self.losses: list[float] = []

    def tick(self, loss: float | None = None) -> None:
        """A step is done.

        Raises:
            Enough: it was the last one.
        """
        self.done += 1
        if loss is not None:
            self.losses.append(loss)
        if self.done == self.job.warmup:
            self.started = self.job.now()
        if self.done == self.job.warmup + self.job.steps:
            self.ended = self.job.now()
            raise Enough

    def report(self) -> dict[str, Any]:
        """For the one who asked."""
        seconds = self.ended - self.started
        return {"rate": self.job.steps * self.job.batch / seconds, "seconds": seconds, "losses": self.losses}

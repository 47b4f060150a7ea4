"""A cache is filled and read, in turns with the teacher's bare forward pass on images that lie ready."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import networks
import numpy as np
import torch
from by_stillroom import asked
from images import arrays
from job import MEAN, STD, Job

from stillroom.data.hash_rng import VIEW_SEED, make_key
from stillroom.distributed.engine import Engine
from stillroom.distributed.signals import Signals
from stillroom.errors import Exit, Stopped
from stillroom.io.run_dir import RunDir
from stillroom.pipeline.prepare import prepare
from stillroom.stages.train import load_teacher
from stillroom.teachers import fill
from stillroom.teachers.cache import Cache
from stillroom.teachers.cached import CachedTeacher

READY = 8  # batches of the bare forward pass
ONES = 24  # how many it does each time


class OneMore(Signals):
    """Asks to end when one more shard is there: a filling goes on where it was."""

    def __init__(self, cache: Cache):
        self.cache, self.before = cache, len(cache.missing)

    @property
    def caught(self) -> Exit | None:
        return Exit.TERMINATED if len(self.cache.missing) < self.before else None


def run(job: Job) -> dict:
    experiment = prepare(asked(job, cached=True), Engine())
    teacher, student = load_teacher(experiment, RunDir(job.folder).weights), experiment.initial_student()
    distiller = experiment.distiller(student, experiment.method_setup(student, teacher))
    asking = experiment.queries(teacher, distiller)
    cache = fill.open_cache(asking)
    for number in range(cache.shards):
        cache.path(number).unlink(missing_ok=True)
    forward = bare(job)
    found: dict[str, list[float]] = {"forward": [], "build": [], "read": []}
    cached = CachedTeacher(cache, asking.split.listed, temperature=asking.temperature)
    while cache.missing:
        before = forward()
        found["build"].append(filled(cache, asking))
        found["forward"].append((before + forward()) / 2)
    for _ in found["build"]:
        found["read"].append(read(cached, job))
    return found | {"answers": len(cache), "bytes": sum(file.stat().st_size for file in cache.folder.iterdir())}


def filled(cache: Cache, asking: fill.TeacherQueries) -> float:
    """Answers a second until the next shard is committed."""
    there, started = set(cache.missing), time.time()
    with suppress(Stopped):
        fill.fill(cache, asking, OneMore(cache))
    (number,) = there - set(cache.missing)
    return len(cache.rows_of(number)) / (cache.path(number).stat().st_mtime - started)


def read(cached: CachedTeacher, job: Job) -> float:
    """Answers a second when all are read in a random order, a batch at a time, as training does."""
    order = np.random.default_rng(job.seed).permutation(len(cached.cache))
    views, places = np.divmod(order, cached.cache.images)
    keys, images = torch.from_numpy(make_key(VIEW_SEED, views, places)), torch.empty(0, device=job.device)
    started = time.perf_counter()
    for start in range(0, len(keys), job.batch):
        cached((images,), keys[start : start + job.batch], ())
    return len(keys) / (time.perf_counter() - started)


def bare(job: Job) -> Callable[[], float]:
    """Images a second of the network and nothing else."""
    network = networks.teacher(job.weights).to(job.device, memory_format=torch.channels_last)
    pixels = torch.from_numpy(arrays(Path(job.folder))[0][: READY * job.batch]).permute(0, 3, 1, 2).to(job.device)
    mean, std = (torch.tensor(part, device=job.device).view(3, 1, 1) for part in (MEAN, STD))
    ready = [
        ((part / 255 - mean) / std).contiguous(memory_format=torch.channels_last) for part in pixels.split(job.batch)
    ]

    def forward() -> float:
        with torch.inference_mode(), job.autocast():
            started = job.now()
            for number in range(ONES):
                network(ready[number % READY])
            return ONES * job.batch / (job.now() - started)

    forward()
    return forward

"""`stillroom plan`: the cost of a recipe, timed on real batches before anything is trained.

Whether teacher outputs are cached is decided by the same function as in `stillroom run`.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillroom.benchmark.steps import Interval, TimedTraining, take_turns, time_second_call
from stillroom.benchmark.target import describe_device, describe_limits
from stillroom.config.device_profile import with_profile
from stillroom.config.schema import Recipe, Training
from stillroom.data.loader import Loader
from stillroom.data.sampling import sample_images
from stillroom.distributed.engine import Engine
from stillroom.io.checkpoint import KEPT
from stillroom.models._inference import infer
from stillroom.models.network import Network
from stillroom.pipeline.prepare import prepare
from stillroom.search.compression import measure_candidates
from stillroom.stages.compress import stage_names
from stillroom.stages.experiment import Experiment
from stillroom.teachers import fill
from stillroom.teachers.cache import Cache
from stillroom.teachers.cached import CachedTeacher
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.teachers.queries import TeacherQueries
from stillroom.teachers.source import num_queries
from stillroom.teachers.teacher import Teacher
from stillroom.training.distiller import Distiller

COMPILED = "cached, compiled"
NUM_VIEWS = 8  # that are assumed where the recipe has unlimited views


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Measured times.

    Attributes:
        ways: name -> timed training: a stage of a teacher that is trained here, "baseline", "live" and "cached".
        teacher_seconds: of the teacher for an image.
        val_seconds: of the student for an image of val.
        choice: whether teacher outputs are cached, and why.
        candidates: compressions of the student on the target, see `measure_candidates`; None where there is no target.
    """

    ways: dict[str, TimedTraining]
    teacher_seconds: float
    val_seconds: float
    choice: tuple[bool, str]
    candidates: list[dict[str, Any]] | None = None


class SampledCache(CachedTeacher):
    """Stands for a cache that does not exist yet: reads random entries of a small one, as many as there are keys."""

    def __init__(self, cache: Cache, *, temperature: float):
        super().__init__(cache, np.arange(cache.images), temperature=temperature)
        self._random = np.random.default_rng(0)

    def numbers(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Random entries."""
        return self._random.integers(len(self.cache), size=len(keys))


def plan(recipe: Recipe, *, engine: Engine, compile: bool = False) -> dict[str, Any]:
    """Hours, memory and disk of a run, ready for JSON.

    Args:
        recipe: the whole experiment.
        engine: the processes.
        compile: whether the compiled student is timed too, which takes a minute.

    Raises:
        StillroomError: what would stop the run, before it has cost anything.
    """
    experiment = prepare(recipe, engine)
    networks, student = experiment.initial_teachers(), experiment.initial_student()
    trained = {
        name: copy.deepcopy(networks[name]) for name, one in experiment.teachers.items() if one.finetune == "all"
    }
    teacher = experiment.freeze(networks)  # from here on they are in evaluation mode
    setup = experiment.method_setup(copy.deepcopy(student), teacher)
    queries = experiment.queries(teacher, experiment.distiller(student, setup))
    assumed = queries if queries.entries else replace(queries, augment=replace(recipe.augment, num_views=NUM_VIEWS))
    timed = _TimedTrainings(experiment, teacher, student, engine)
    found = measure(timed, recipe, trained, queries, assumed, compile)
    if recipe.deploy:
        candidates = list(measure_candidates(experiment, with_profile(recipe.deploy), enough=2))
        found = replace(found, candidates=candidates)
    return summary(recipe, experiment, assumed, found)


@dataclass(frozen=True)
class _TimedTrainings:
    """Trainings of the experiment, each on copies of its networks."""

    experiment: Experiment
    teacher: FrozenTeacher
    student: Network
    engine: Engine

    def alone(self, network: Network, training: Training) -> TimedTraining:
        """On the labels alone."""
        return self._way(self.experiment.distiller(copy.deepcopy(network), None), None, training)

    def distilled(self, source: Teacher, training: Training) -> TimedTraining:
        """With the methods, from a live or a cached teacher."""
        student = copy.deepcopy(self.student)
        setup = self.experiment.method_setup(student, self.teacher)
        return self._way(self.experiment.distiller(student, setup), source, training)

    def _way(self, distiller: Distiller, source: Teacher | None, training: Training) -> TimedTraining:
        one = self.experiment
        batches = Loader(
            one.data.splits["train"],
            batch=training.batch,
            seed=one.seed,
            augment=one.augment,
            rank=self.engine.rank,
            world=self.engine.world,
        )
        return TimedTraining(distiller, source, batches, training, self.engine)


def measure(
    timed: _TimedTrainings,
    recipe: Recipe,
    trained: Mapping[str, Network],
    queries: TeacherQueries,
    assumed: TeacherQueries,
    compile: bool,
) -> Measured:
    """Time everything that a run would spend hours on."""
    experiment, engine = timed.experiment, timed.engine
    with ExitStack() as stack, experiment.threads(timed.student, timed.teacher):
        kept, teacher_seconds = stack.enter_context(fill.sample_cache(assumed))
        ways = {name: timed.alone(network, experiment.teachers[name].train) for name, network in trained.items()}
        if recipe.baseline and experiment.task.has_label_loss:
            ways["baseline"] = timed.alone(timed.student, recipe.train)
        sample = SampledCache(kept, temperature=queries.temperature)
        ways["live"] = timed.distilled(timed.teacher, recipe.train)
        ways["cached"] = timed.distilled(sample, recipe.train)
        if compile:
            ways[COMPILED] = timed.distilled(sample, replace(recipe.train, compile=True))
        for one in ways.values():
            stack.callback(one.close)
        take_turns(ways, engine)
        images = sample_images(experiment.data.splits["val"], recipe.train.batch).to(engine.device)
        val_seconds = time_second_call(lambda: infer(timed.student, images)) / len(images)
        choice = fill.should_cache(queries, len(recipe.seeds) * num_queries(queries, recipe.train))
    return Measured(ways=ways, teacher_seconds=teacher_seconds, val_seconds=val_seconds, choice=choice)


def summary(recipe: Recipe, experiment: Experiment, assumed: TeacherQueries, found: Measured) -> dict[str, Any]:
    """The measured times as hours, memory and disk."""
    images = len(assumed.split)
    cached, why = found.choice
    checkpoint = max(way.checkpoint for way in found.ways.values())
    return {
        "recipe": recipe.name,
        "seeds": len(recipe.seeds),
        "ways": {name: _way(way, recipe) for name, way in found.ways.items()},
        "hours": {name: astuple(span) for name, span in _all_hours(recipe, experiment, assumed, found).items()},
        "teacher": {
            "mode": "cached" if cached else "live",
            "why": why,
            "entries": assumed.entries,
            "num_views": assumed.augment.distinct_views,
            "seconds_per_image": found.teacher_seconds,
        },
        "compile": _compiled(found.ways, recipe.train.total_steps(images)),
        "target": _target(recipe, found.candidates),
        "disk_gb": {
            "cache": round(assumed.bytes / 2**30, 3),
            "checkpoints": round(KEPT * checkpoint / 2**30, 3),
            "free": round(shutil.disk_usage(Path()).free / 2**30, 1),
        },
    }


def _all_hours(recipe: Recipe, experiment: Experiment, assumed: TeacherQueries, found: Measured) -> dict[str, Interval]:
    """Hours of every stage, of the student both ways, of filling the cache, and in total."""
    seeds, images, val = len(recipe.seeds), len(assumed.split), len(assumed.data.splits["val"])
    way = "cached" if found.choice[0] else "live"

    def hours(name: str, training: Training) -> Interval:
        return _hours(found, name, training, images, val)

    stages: dict[str, Interval] = {}
    for stage, section in experiment.teachers.items():
        if section.finetune == "all":
            stages[stage] = hours(stage, section.train)
        elif section.finetune == "head":
            stages[stage] = _interval(found.teacher_seconds * (images + val) / 3600)
    if "baseline" in found.ways:
        stages["baseline"] = hours("baseline", recipe.train) * seeds
    for name, one in zip(stage_names(recipe.compress)[1:], recipe.compress, strict=True):
        stages[name] = hours(way, one.train) * seeds  # at most: the student is smaller then
    filling = _interval(found.teacher_seconds * assumed.entries / 3600)
    student = {"live": hours("live", recipe.train) * seeds, "cached": filling + hours("cached", recipe.train) * seeds}
    total = sum([*stages.values(), student[way]], Interval())
    student_hours = {f"student, {name}": one for name, one in student.items()}
    return stages | student_hours | {"cache_filling": filling, "total": total}


def _interval(value: float) -> Interval:
    return Interval(value, value, value)


def _hours(found: Measured, way: str, training: Training, images: int, val: int) -> Interval:
    """Of one training, evaluations included."""
    evaluations = _interval(found.val_seconds * val * training.num_evals)
    return (found.ways[way].step * training.total_steps(images) + evaluations) * (1 / 3600)


def _way(way: TimedTraining, recipe: Recipe) -> dict[str, Any]:
    return {
        "step_ms": [round(1e3 * value, 3) for value in astuple(way.step)],
        "images_per_second": round(recipe.train.batch / way.step.middle, 1),
        "data_wait": round(way.waiting, 4),
        "peak_gb": None if way.peak is None else round(way.peak / 2**30, 2),
    }


def _compiled(ways: Mapping[str, TimedTraining], steps: int) -> dict[str, Any] | None:
    """What `train.compile = true` would save in one training of the student; None where it was not tried."""
    if COMPILED not in ways:
        return None
    plain, fast = ways["cached"], ways[COMPILED]
    saved = (plain.step.middle - fast.step.middle) * steps - (fast.start - plain.start)
    return {"speedup": round(plain.step.middle / fast.step.middle, 3), "start": fast.start, "saves": saved}


def _target(recipe: Recipe, candidates: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    """Whether the limits can be kept, and by what; None where there are none."""
    if recipe.deploy is None or candidates is None:
        return None
    target = with_profile(recipe.deploy)
    first = next((row for row in candidates if row["meets"]), None)
    return {
        "satisfiable": first is not None,
        "limits": describe_limits(target),
        "where": describe_device(target),
        "chosen": first and first["what"],
        "candidates": [row | {"chosen": row is first} for row in candidates],
    }

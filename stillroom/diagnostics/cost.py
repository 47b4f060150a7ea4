"""`stillroom plan`: what a recipe will cost, timed on real batches before anything is trained.

Whether the teacher is asked once or at every step is decided by the same function as in `stillroom run`.
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

from stillroom.benchmark import target
from stillroom.benchmark.steps import Interval, Way, once, take_turns
from stillroom.config import device_profile
from stillroom.config.schema import Recipe, Training
from stillroom.data import sampling
from stillroom.data.loader import Loader
from stillroom.distributed.engine import Engine
from stillroom.distributed.signals import Signals
from stillroom.io.checkpoint import KEPT
from stillroom.io.run_dir import RunDir
from stillroom.models import _inference
from stillroom.models.network import Network
from stillroom.search import compression
from stillroom.stages import build, compress
from stillroom.stages.train import Stages
from stillroom.teachers import fill, source
from stillroom.teachers.cache import Cache
from stillroom.teachers.cached import CachedTeacher
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.teachers.queries import TeacherQueries
from stillroom.teachers.teacher import Teacher
from stillroom.training.distiller import Distiller

COMPILED = "cached, compiled"
ADVISED = 8  # looks that are counted with where the recipe has no end of them


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was timed.

    Attributes:
        ways: name -> way to train: a stage of a teacher that is trained here, "baseline", "live" and "cached".
        ask: seconds that the teacher needs for an image.
        look: seconds that the student needs for an image of val.
        choice: whether the teacher is asked once, and why.
        candidates: what compressions of the student come to on the target, see `budget.tried`; None where the recipe
            has no target.
    """

    ways: dict[str, Way]
    ask: float
    look: float
    choice: tuple[bool, str]
    candidates: list[dict[str, Any]] | None = None


class Sample(CachedTeacher):
    """Stands for a cache that is not there yet: reads from a small one, any answers, as many as there are keys."""

    def __init__(self, cache: Cache, *, temperature: float):
        super().__init__(cache, np.arange(cache.images), temperature=temperature)
        self._random = np.random.default_rng(0)

    def numbers(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Whichever."""
        return self._random.integers(len(self.cache), size=len(keys))


def plan(recipe: Recipe, *, engine: Engine, signals: Signals, compile: bool = False) -> dict[str, Any]:
    """What there is to know before a run, ready for JSON.

    Args:
        recipe: the whole experiment.
        engine: the processes.
        signals: who may end it.
        compile: whether the student is timed compiled too, which takes a minute.

    Raises:
        StillroomError: what would stop the run, before it has cost anything.
    """
    recipe, data, task = build.build_data_and_task(recipe)
    stages = Stages(recipe, data, task, RunDir(Path(recipe.name), writes=False), engine, signals, lambda *_: None)
    networks, student = stages.begun(), stages.untrained()
    fits = {name: section.fit for name, section in build.teacher_sections(recipe.teacher).items()}
    trained = {name: copy.deepcopy(network) for name, network in networks.items() if fits[name] == "all"}
    teacher = stages.asked(networks)  # from here on they are at rest
    asking = stages.asking(teacher, stages.learner(copy.deepcopy(student), teacher))
    counted = asking if asking.entries else replace(asking, augment=replace(recipe.augment, views=ADVISED))
    found = measure(stages, trained, teacher, student, asking, counted, compile)
    if recipe.target:
        found = replace(
            found,
            candidates=list(
                compression.measure_candidates(stages, device_profile.with_profile(recipe.target), enough=2)
            ),
        )
    return summary(recipe, counted, found)


def measure(
    stages: Stages,
    trained: Mapping[str, Network],
    teacher: FrozenTeacher,
    student: Network,
    asking: TeacherQueries,
    counted: TeacherQueries,
    compile: bool,
) -> Measured:
    """Time everything that a run of these stages will spend hours on."""
    recipe, data, task, engine = stages.recipe, stages.data, stages.task, stages.engine

    def way(learner: Distiller, speaker: Teacher | None, training: Training) -> Way:
        part = {"rank": engine.rank, "world": engine.world}
        batches = Loader(asking.split, batch=training.batch, seed=stages.seed, augment=recipe.augment, **part)
        return Way(learner, speaker, batches, training, engine)

    def alone(network: Network, training: Training) -> Way:
        return way(stages.learner(copy.deepcopy(network), None), None, training)

    def taught(speaker: Teacher, training: Training = recipe.train) -> Way:
        return way(stages.learner(copy.deepcopy(student), teacher), speaker, training)

    with ExitStack() as stack, stages.threads(student, teacher):
        kept, ask = stack.enter_context(fill.sample_cache(counted))
        sections = build.teacher_sections(recipe.teacher)
        ways = {name: alone(network, sections[name].train) for name, network in trained.items()}
        if recipe.baseline and task.has_label_loss:
            ways["baseline"] = alone(student, recipe.train)
        sample = Sample(kept, temperature=asking.temperature)
        ways |= {"live": taught(teacher), "cached": taught(sample)}
        if compile:
            ways[COMPILED] = taught(sample, replace(recipe.train, compile=True))
        for one in ways.values():
            stack.callback(one.close)
        take_turns(ways, engine)
        images = sampling.sample_images(data.splits["val"], recipe.train.batch).to(engine.device)
        look = once(lambda: _inference.infer(student, images)) / len(images)
        choice = fill.should_cache(asking, len(recipe.seeds) * source.num_queries(asking, recipe.train))
    return Measured(ways=ways, ask=ask, look=look, choice=choice)


def summary(recipe: Recipe, counted: TeacherQueries, found: Measured) -> dict[str, Any]:
    """What was timed, as hours, memory and disk."""
    seeds, images = len(recipe.seeds), len(counted.split)
    val = len(counted.data.splits["val"])

    def hours(name: str, training: Training) -> Interval:
        return _hours(found, name, training, images, val)

    stages: dict[str, Interval] = {}
    for stage, section in build.teacher_sections(recipe.teacher).items():
        if section.fit == "all":
            stages[stage] = hours(stage, section.train)
        elif section.fit == "head":
            stages[stage] = Interval(*[found.ask * (images + val) / 3600] * 3)
    if "baseline" in found.ways:
        stages["baseline"] = hours("baseline", recipe.train) * seeds
    cached, why = found.choice
    for name, one in zip(compress.stage_names(recipe)[1:], recipe.compress, strict=True):
        # The student is smaller then, so this is what it takes at most.
        stages[name] = _hours(found, "cached" if cached else "live", one.train, images, val) * seeds
    asked = Interval(*[found.ask * counted.entries / 3600] * 3)
    student = {"live": hours("live", recipe.train) * seeds, "cached": asked + hours("cached", recipe.train) * seeds}
    total = sum([*stages.values(), student["cached" if cached else "live"]], Interval())
    checkpoint = max(way.checkpoint for way in found.ways.values())
    return {
        "recipe": recipe.name,
        "seeds": seeds,
        "ways": {name: _way(way, recipe) for name, way in found.ways.items()},
        "hours": {name: astuple(span) for name, span in stages.items()}
        | {f"student, {name}": astuple(span) for name, span in student.items()}
        | {"labelling": astuple(asked), "total": astuple(total)},
        "teacher": {
            "asked": "once" if cached else "at every step",
            "why": why,
            "answers": counted.entries,
            "looks": counted.augment.looks,
            "seconds_an_image": found.ask,
        },
        "compile": _compiled(found.ways, recipe.train.total_steps(images)),
        "target": _target(recipe, found.candidates),
        "disk_gb": {
            "cache": round(counted.bytes / 2**30, 3),
            "checkpoints": round(KEPT * checkpoint / 2**30, 3),
            "free": round(shutil.disk_usage(Path()).free / 2**30, 1),
        },
    }


def _hours(found: Measured, way: str, training: Training, images: int, val: int) -> Interval:
    """Of one training in one of the ways that were timed."""
    watched = Interval(*[found.look * val * training.evaluations] * 3)
    return (found.ways[way].step * training.total_steps(images) + watched) * (1 / 3600)


def _way(way: Way, recipe: Recipe) -> dict[str, Any]:
    return {
        "step_ms": [round(1e3 * value, 3) for value in astuple(way.step)],
        "images_per_second": round(recipe.train.batch / way.step.middle, 1),
        "data_wait": round(way.waiting, 4),
        "peak_gb": None if way.peak is None else round(way.peak / 2**30, 2),
    }


def _compiled(ways: Mapping[str, Way], steps: int) -> dict[str, Any] | None:
    """What `train.compile = true` would save in one training of the student; None where it was not tried."""
    if COMPILED not in ways:
        return None
    plain, fast = ways["cached"], ways[COMPILED]
    saved = (plain.step.middle - fast.step.middle) * steps - (fast.start - plain.start)
    return {"speedup": round(plain.step.middle / fast.step.middle, 3), "start": fast.start, "saves": saved}


def _target(recipe: Recipe, candidates: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    """Whether the budget can be met, and by what; None where there is none."""
    if recipe.target is None or candidates is None:
        return None
    first = next((row for row in candidates if row["meets"]), None)
    return {
        "satisfiable": first is not None,
        "limits": target.describe_limits(device_profile.with_profile(recipe.target)),
        "where": target.describe_device(device_profile.with_profile(recipe.target)),
        "chosen": first and first["what"],
        "candidates": [row | {"chosen": row is first} for row in candidates],
    }

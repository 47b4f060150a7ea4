"""Who teaches: the teacher itself, asked at every step, or what it said when it was asked once."""

from __future__ import annotations

import logging
from typing import Any

from stillroom.config import schema
from stillroom.config.schema import Training
from stillroom.data.dataset import Dataset
from stillroom.distributed.engine import Engine
from stillroom.distributed.signals import Signals
from stillroom.io.run_dir import RunDir
from stillroom.teachers import fill
from stillroom.teachers.cached import CachedTeacher
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.teachers.queries import TeacherQueries
from stillroom.teachers.teacher import Teacher

log = logging.getLogger("stillroom")

AUDITED = 256  # answers of a cache that was there already which the teacher is asked about again


def build_queries(
    recipe: schema.Recipe,
    data: Dataset,
    teacher: FrozenTeacher,
    *,
    taps: tuple[str, ...],
    temperatures: tuple[float, ...],
    world: int,
) -> TeacherQueries:
    """The teacher, with every forward pass that training will need of it.

    Args:
        recipe: how images are augmented, the size of a batch, how outputs are stored.
        data: the images.
        teacher: frozen, on its device.
        taps: inner features that the methods read.
        temperatures: of the methods, the first one's first.
        world: how many processes share a batch.
    """
    return TeacherQueries(
        teacher=teacher,
        data=data,
        augment=recipe.augment,
        taps=taps,
        temperatures=tuple(dict.fromkeys(temperatures)),
        batch=max(2, recipe.train.batch // world // recipe.train.accumulate),
        section=recipe.cache,
        named=_named(recipe.teacher),
    )


def live_or_cached(queries: TeacherQueries, wanted: int, *, run: RunDir, engine: Engine, signals: Signals) -> Teacher:
    """Who answers in the steps to come. Whichever it was when the run began, it is after a resume.

    Args:
        asking: the teacher, and what it would be asked about.
        looks: answers that all students together will want.
        run: where the decision is kept.
        engine: the processes.
        signals: who may end it.
    """
    known = run.info.get("answers")
    kept, why = (known["kept"], known["why"]) if known else fill.should_cache(queries, wanted)
    kept = engine.any(kept)  # every process has measured for itself
    log.info("teacher: %s, because %s", "asked once" if kept else "asked at every step", why)
    if not kept:
        run.note(answers={"kept": False, "why": why})
        return queries.teacher
    cache = fill.open_cache(queries)
    run.note(answers={"kept": True, "why": why, "cache": str(cache.folder)})
    with signals.held():
        made = fill.fill(cache, queries, signals)
    if not made:
        fill.audit(cache, queries, AUDITED / len(cache))
    engine.barrier()
    return CachedTeacher(cache, queries.split.listed, temperature=queries.temperature)


def num_queries(queries: TeacherQueries, training: Training) -> int:
    """How many answers one student wants in a whole training."""
    return training.total_steps(len(queries.split)) * training.batch


def _named(section: schema.Teacher) -> dict[str, Any]:
    """What of `[teacher]` its answers depend on, weights aside."""
    said = {"network": section.network, "arguments": dict(section.arguments), "map": section.map}
    return said | {"combine": section.combine, "others": [_named(one) for one in section.others]}

"""Where teacher outputs come from in training: a live forward pass at every step, or a cache filled beforehand."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stillroom.config.schema import Augment, Cache, Training
from stillroom.config.schema import Teacher as Section
from stillroom.data.dataset import Dataset
from stillroom.distributed.engine import Engine
from stillroom.distributed.signals import Signals
from stillroom.teachers import fill
from stillroom.teachers.cached import CachedTeacher
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.teachers.queries import TeacherQueries
from stillroom.teachers.teacher import Teacher

log = logging.getLogger("stillroom")

NUM_AUDITED = 256  # entries of an existing cache that are compared with fresh outputs before it is used


def build_queries(
    teacher: FrozenTeacher,
    data: Dataset,
    sections: Mapping[str, Section],
    *,
    augment: Augment,
    cache: Cache,
    taps: tuple[str, ...],
    temperatures: tuple[float, ...],
    batch: int,
) -> TeacherQueries:
    """The teacher, with every forward pass that training will need of it.

    Args:
        teacher: frozen, on its device.
        data: the images.
        sections: stage -> section of every teacher, which identify it.
        augment: how images are augmented.
        cache: how outputs are stored.
        taps: inner features that the methods read.
        temperatures: of the methods, in their order.
        batch: images a forward pass, at least 2.
    """
    return TeacherQueries(
        teacher=teacher,
        data=data,
        augment=augment,
        taps=taps,
        temperatures=tuple(dict.fromkeys(temperatures)),
        batch=max(2, batch),
        section=cache,
        named=_identity(*sections.values()),
    )


@dataclass(frozen=True)
class CacheDecision:
    """Whether teacher outputs are cached, and why."""

    kept: bool
    why: str


@dataclass
class TeacherSource:
    """Decides once a run between a live teacher and its cache; a resumed run keeps the decision.

    Attributes:
        decision: of this run, None before it is made.
        record: called with a new decision and, where there is a cache, its folder.
        num_students: that share the cache: this run's, and those of the same recipe's other seeds.
    """

    decision: CacheDecision | None
    record: Callable[[CacheDecision, str | None], None]
    num_students: int = 1

    def open(self, queries: TeacherQueries, training: Training, *, engine: Engine, signals: Signals) -> Teacher:
        """The teacher of a training: live, or a cache, which is filled first.

        Args:
            queries: the teacher, and what is asked of it.
            training: of the student; decides how many outputs are read.
            engine: the processes.
            signals: may end it.

        Raises:
            StillroomError: as `fill.open_cache` and `fill.audit`.
            Stopped: by a signal; what is filled stays.
        """
        if self.decision is None:
            kept, why = fill.should_cache(queries, self.num_students * num_queries(queries, training))
            self.decision = CacheDecision(engine.any(kept), why)  # every process has measured for itself
            self.record(self.decision, None)
        log.info("teacher: %s, because %s", "cached" if self.decision.kept else "live", self.decision.why)
        if not self.decision.kept:
            return queries.teacher
        cache = fill.open_cache(queries)
        self.record(self.decision, str(cache.folder))
        with signals.held():
            filled = fill.fill(cache, queries, signals)
        if not filled:
            fill.audit(cache, queries, NUM_AUDITED / len(cache))
        engine.barrier()
        return CachedTeacher(cache, queries.split.listed, temperature=queries.temperature)


def num_queries(queries: TeacherQueries, training: Training) -> int:
    """How many outputs one student reads in a whole training."""
    return training.total_steps(len(queries.split)) * training.batch


def _identity(first: Section, *others: Section) -> dict[str, Any]:
    """What of `[teacher]` its outputs depend on, weights aside. Part of a cache's fingerprint: names never change."""
    own = {"network": first.network, "arguments": dict(first.arguments), "map": first.class_map}
    return own | {"combine": first.combine} | {"others": [_identity(one) for one in others]}

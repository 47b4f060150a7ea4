"""Caches of the small teacher that `kit.training` has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kit import training
from stillroom.config.schema import Augment, Cache
from stillroom.distributed.signals import Signals
from stillroom.teachers import fill
from stillroom.teachers.cached import CachedTeacher
from stillroom.teachers.queries import TeacherQueries

LOOKS = Augment(shift=0.1, rotate=10, num_views=3)


def asking(
    folder: Path, *, teacher: Any = None, augment: Augment = LOOKS, batch: int = 32, **more: Any
) -> TeacherQueries:
    kept = {name: more.pop(name) for name in ("bits", "top_p", "max_gb", "use") if name in more}
    section = Cache(path=str(folder), **kept)
    return TeacherQueries(
        teacher=teacher or training.teacher(),
        data=training.digits(),
        augment=augment,
        batch=batch,
        section=section,
        **more,
    )


def filled(one: TeacherQueries) -> CachedTeacher:
    cache = fill.open_cache(one)
    fill.fill(cache, one, Signals())
    return CachedTeacher(cache, one.split.listed, temperature=one.temperature)

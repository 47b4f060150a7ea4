"""Caches of the small teacher that `kit.training` has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kit import training
from stillroom.engine import Signals
from stillroom.sections import Augment, Cache
from stillroom.teachers import filling
from stillroom.teachers.asking import Asking
from stillroom.teachers.cached import Cached

LOOKS = Augment(shift=0.1, rotate=10, views=3)


def asking(folder: Path, *, teacher: Any = None, augment: Augment = LOOKS, batch: int = 32, **more: Any) -> Asking:
    kept = {name: more.pop(name) for name in ("bits", "mass", "max_gb", "use") if name in more}
    section = Cache(path=str(folder), **kept)
    return Asking(
        teacher=teacher or training.teacher(),
        data=training.digits(),
        augment=augment,
        batch=batch,
        section=section,
        **more,
    )


def filled(one: Asking) -> Cached:
    cache = filling.opened(one)
    filling.fill(cache, one, Signals())
    return Cached(cache, one.split.listed, temperature=one.temperature)

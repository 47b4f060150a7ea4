"""Who teaches: the teacher itself, asked at every step, or what it said when it was asked once."""

from __future__ import annotations

import logging
from typing import Any

from stillroom import sections
from stillroom.data.dataset import Dataset
from stillroom.engine import Engine, Signals
from stillroom.learn import total_steps
from stillroom.learner import Learner
from stillroom.run import Run
from stillroom.sections import Training
from stillroom.teachers import filling
from stillroom.teachers.asking import Asking
from stillroom.teachers.cached import Cached
from stillroom.teachers.frozen import Frozen
from stillroom.teachers.teacher import Teacher

log = logging.getLogger("stillroom")

AUDITED = 256  # answers of a cache that was there already which the teacher is asked about again


def asking(recipe: sections.Recipe, data: Dataset, teacher: Frozen, learner: Learner, *, world: int) -> Asking:
    """The teacher, with all that a learner's methods will want to hear of it.

    Args:
        recipe: how images look, what a batch is, how answers are kept.
        data: the images.
        teacher: at rest, on its device.
        learner: the student with its methods.
        world: how many processes share a batch.
    """
    found = (getattr(method, "temperature", None) for method in learner.methods.values())
    return Asking(
        teacher=teacher,
        data=data,
        augment=recipe.augment,
        taps=learner.teacher_taps,
        temperatures=tuple(dict.fromkeys(t for t in found if isinstance(t, float))),
        batch=max(2, recipe.train.batch // world // recipe.train.accumulate),
        section=recipe.cache,
        named=_named(recipe.teacher),
    )


def source(asking: Asking, looks: int, *, run: Run, engine: Engine, signals: Signals) -> Teacher:
    """Who answers in the steps to come. Whichever it was when the run began, it is after a resume.

    Args:
        asking: the teacher, and what it would be asked about.
        looks: answers that all students together will want.
        run: where the decision is kept.
        engine: the processes.
        signals: who may end it.
    """
    known = run.info.get("answers")
    kept, why = (known["kept"], known["why"]) if known else filling.worth(asking, looks)
    kept = engine.any(kept)  # every process has measured for itself
    log.info("teacher: %s, because %s", "asked once" if kept else "asked at every step", why)
    if not kept:
        run.note(answers={"kept": False, "why": why})
        return asking.teacher
    cache = filling.opened(asking)
    run.note(answers={"kept": True, "why": why, "cache": str(cache.folder)})
    with signals.held():
        made = filling.fill(cache, asking, signals)
    if not made:
        filling.audit(cache, asking, AUDITED / len(cache))
    engine.barrier()
    return Cached(cache, asking.split.listed, temperature=asking.temperature)


def looks(asking: Asking, training: Training) -> int:
    """How many answers one student wants in a whole training."""
    return total_steps(training, len(asking.split)) * training.batch


def _named(section: sections.Teacher) -> dict[str, Any]:
    """What of `[teacher]` its answers depend on, weights aside."""
    said = {"network": section.network, "arguments": dict(section.arguments), "map": section.map}
    return said | {"combine": section.combine, "others": [_named(one) for one in section.others]}

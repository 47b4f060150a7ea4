"""Who teaches: the teacher itself, asked at every step, or what it said when it was asked once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from stillroom import sections
from stillroom.data.dataset import Dataset
from stillroom.data.loader import in_order
from stillroom.engine import Engine, Signals
from stillroom.learn import total_steps
from stillroom.learner import Learner
from stillroom.metrics._figure import wilson
from stillroom.run import Run
from stillroom.sections import Training
from stillroom.tasks.task import Task
from stillroom.teachers import filling
from stillroom.teachers.asking import Asking
from stillroom.teachers.cached import Cached
from stillroom.teachers.frozen import Frozen
from stillroom.teachers.teacher import Teacher
from stillroom.types import Output

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


def question(
    teacher: Frozen, members: Mapping[str, str], data: Dataset, task: Task, *, run: Run, engine: Engine
) -> None:
    """Say so when a teacher knows no more than chance, as one does whose classes are in another order.

    Args:
        teacher: as it is asked.
        members: of several teachers each one's stage -> the tap at which its own prediction is heard.
        data: whose val split is shown.
        task: whose headline figure counts.
        run: where warnings are kept.
        engine: the processes.
    """
    if not data.labelled:
        return
    split, chance = data.splits["val"], task.chance(len(data.classes))
    whole = "the mean of all teachers" if members else "teacher"
    metrics = {name: task.metrics(data.classes)[0] for name in (*members, whole)}
    for batch in in_order(split, 32):
        batch = batch.to(engine.device)
        said = teacher((batch.images,), batch.keys, tuple(members.values()))
        preds = {name: said.taps[tap] for name, tap in members.items()} | {whole: said.pred}
        for name, pred in preds.items():
            metrics[name].update(task.answer(Output(pred=pred), batch.images), batch)
    for name, metric in metrics.items():
        found = metric.value()
        if chance and wilson(round(found * len(split)), len(split))[0] <= chance:
            run.warn(
                f"SR-M302 {name} is right on {found:.1%} of {len(split)} val images, which chance explains "
                f"({chance:.1%}): are its classes in the data's order, and its pixels as it wants them?"
            )
        log.info("%s: %s %.1f %% on val", name, task.about.title, 100 * found)


def _named(section: sections.Teacher) -> dict[str, Any]:
    """What of `[teacher]` its answers depend on, weights aside."""
    said = {"network": section.network, "arguments": dict(section.arguments), "map": section.map}
    return said | {"combine": section.combine, "others": [_named(one) for one in section.others]}

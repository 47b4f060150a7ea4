"""Whether a teacher is better than chance on the validation split."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from stillroom.data.dataset import Dataset
from stillroom.data.loader import in_order
from stillroom.distributed.engine import Engine
from stillroom.io.run_dir import RunDir
from stillroom.metrics.measurement import wilson
from stillroom.tasks.task import Task
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.types import Output

log = logging.getLogger("stillroom")


def warn_weak_teacher(
    teacher: FrozenTeacher, members: Mapping[str, str], data: Dataset, task: Task, *, run: RunDir, engine: Engine
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
    split, chance = data.splits["val"], task.chance_level(len(data.classes))
    whole = "the mean of all teachers" if members else "teacher"
    metrics = {name: task.metrics(data.classes)[0] for name in (*members, whole)}
    for batch in in_order(split, 32):
        batch = batch.to(engine.device)
        said = teacher((batch.images,), batch.keys, tuple(members.values()))
        preds = {name: said.taps[tap] for name, tap in members.items()} | {whole: said.pred}
        for name, pred in preds.items():
            metrics[name].update(task.postprocess(Output(pred=pred), batch.images), batch)
    for name, metric in metrics.items():
        found = metric.value()
        if chance and wilson(round(found * len(split)), len(split))[0] <= chance:
            run.warn(
                f"SR-M302 {name} is right on {found:.1%} of {len(split)} val images, which chance explains "
                f"({chance:.1%}): are its classes in the data's order, and its pixels as it wants them?"
            )
        log.info("%s: %s %.1f %% on val", name, task.info.title, 100 * found)

"""Whether a teacher is better than chance on the validation split."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import Tensor

from stillroom.data.dataset import Dataset
from stillroom.data.loader import in_order
from stillroom.distributed.one_process import Processes
from stillroom.evaluation.predict import predict
from stillroom.io.run_dir import RunDir
from stillroom.metrics.measurement import wilson
from stillroom.tasks.task import Task
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.types import Output

log = logging.getLogger("stillroom")


def warn_weak_teacher(
    teacher: FrozenTeacher, members: Mapping[str, str], data: Dataset, task: Task, *, run: RunDir, engine: Processes
) -> None:
    """Log the teacher's figure on val; warn where chance explains it, as with classes in another order.

    Args:
        teacher: on the engine's device.
        members: of an ensemble, stage -> the tap at which that member's own prediction is read.
        data: whose val split is read.
        task: whose headline metric counts.
        run: where warnings are kept.
        engine: the processes; all of them run this, for a sharded teacher needs all.
    """
    if not data.labelled:
        return
    split, chance = data.splits["val"], task.chance_level(len(data.classes))
    whole = "the mean of all teachers" if members else "teacher"
    taps = tuple(members.values())

    def network(images: Tensor) -> Output:
        return teacher.predict(images, taps)

    metrics = {name: task.metrics(data.classes)[0] for name in (*members, whole)}
    for batch, outputs in predict({"teacher": network}, in_order(split, 32), engine.device):
        found = outputs["teacher"]
        for name, pred in ({name: found.taps[tap] for name, tap in members.items()} | {whole: found.pred}).items():
            metrics[name].update(task.postprocess(Output(pred=pred), batch.images), batch)
    for name, metric in metrics.items():
        value = metric.value()
        if chance and wilson(round(value * len(split)), len(split))[0] <= chance:
            run.warn(
                f"SR-M302 {name} is right on {value:.1%} of {len(split)} val images, no better than chance "
                f"({chance:.1%}): are its classes in the data's order, and its pixels normalised as it expects?"
            )
        log.info("%s: %s %.1f %% on val", name, task.info.title, 100 * value)

"""The headline figure of a network on a split, shared over processes."""

from __future__ import annotations

from dataclasses import replace

import torch

from stillroom.data.dataset import Split
from stillroom.data.loader import in_order
from stillroom.distributed.engine import Engine
from stillroom.tasks.task import Task
from stillroom.types import PredictFn


@torch.no_grad()
def validate(
    network: PredictFn,
    task: Task,
    split: Split,
    classes: tuple[str, ...],
    batch: int,
    engine: Engine,
    judge: PredictFn | None = None,
) -> float:
    """The task's headline figure on a split, of a network in inference mode.

    `judge` is who knows what is right where no image has a label: the teacher.
    """
    metric, *_ = task.metrics(classes)
    for one in in_order(split, batch):
        one = one.to(engine.device)
        if judge:
            one = replace(one, target=task.postprocess(judge(one.images), one.images))
        metric.update(task.postprocess(network(one.images), one.images), one)
    return metric.value()

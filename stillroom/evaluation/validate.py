"""The headline figure of a network on a split."""

from __future__ import annotations

from dataclasses import replace

import torch

from stillroom.data.dataset import Split
from stillroom.data.loader import in_order
from stillroom.evaluation.predict import predict
from stillroom.tasks.predictor import Predictor
from stillroom.tasks.task import Task
from stillroom.types import PredictFn


def validate(
    network: PredictFn,
    task: Task,
    split: Split,
    classes: tuple[str, ...],
    *,
    batch: int = 32,
    device: torch.device | str = "cpu",
    reference: PredictFn | None = None,
) -> float:
    """The value of the task's first metric on a split, 0..1.

    Args:
        network: on `device`, evaluated without gradient.
        task: whose metric and last step count.
        split: its images are read once, without augmentation.
        classes: names in label order.
        batch: images at a time.
        device: where the networks are.
        reference: predicts the targets where no image has a label: the teacher; None where they have labels.
    """
    networks = {"network": Predictor(network, task)} | ({"reference": Predictor(reference, task)} if reference else {})
    metric, *_ = task.metrics(classes)
    for one, found in predict(networks, in_order(split, batch), device):
        known = replace(one, target=found["reference"]) if reference else one
        metric.update(found["network"], known)
    return metric.value()

"""A network followed by its task's postprocessing, as it is exported."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from stillroom.tasks.task import Task
from stillroom.types import Output


class Predictor(nn.Module):
    """Images -> the task's predictions: boxes after NMS, vectors of unit length, or plain logits.

    This is what is exported, evaluated and timed.

    Args:
        network: images -> Output.
        task: its `postprocess` is the last step.
    """

    def __init__(self, network: Callable[[Tensor], Output], task: Task):
        super().__init__()
        self.network, self.task = network, task

    def forward(self, images: Tensor) -> Output:
        """The predictions for images [B, C, H, W] in 0..1."""
        return self.task.postprocess(self.network(images), images)

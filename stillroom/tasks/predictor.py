"""A network as it is shipped: with its task's last step behind it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from stillroom.tasks.task import Task
from stillroom.types import Output


class Predictor(nn.Module):
    """Images -> the task's answer: boxes rather than places, vectors of unit length, logits as they are.

    What an exported file holds, what metrics judge, and what is timed.

    Args:
        network: pixels -> Output.
        task: knows the last step.
    """

    def __init__(self, network: Callable[[Tensor], Output], task: Task):
        super().__init__()
        self.network, self.task = network, task

    def forward(self, images: Tensor) -> Output:
        """The answer to [B, C, H, W] images in 0..1."""
        return self.task.answer(self.network(images), images)

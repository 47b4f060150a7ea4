"""Predictions of two detectors at the same box locations."""

from __future__ import annotations

from torch import Tensor

from stillroom.distributed.collectives import all_reduce_sum
from stillroom.methods._errors import BoxLocationsMismatch
from stillroom.methods.method import Method
from stillroom.types import Output


def check_locations(method: Method, student: Output, teacher: Output) -> None:
    """For `setup`: both must predict a box at the same number of locations.

    Raises:
        BoxLocationsMismatch: SR-M336 they don't.
    """
    num_student, num_teacher = student.pred.shape[1], teacher.pred.shape[1]
    if num_student != num_teacher:
        raise BoxLocationsMismatch(method=type(method).__name__, student=num_student, theirs=num_teacher)


def confidence(teacher: Tensor) -> Tensor:
    """The largest class score of each location, [B, A, 4 + K] -> [B, A]."""
    return teacher[..., 4:].sigmoid().amax(2)


def per_object(total: Tensor, confidences: Tensor) -> Tensor:
    """The sum `total` / max(1, sum of `confidences`), over all processes: roughly the loss per object.

    The label loss is normalised in the same way, so that weights are comparable. Each process computes the loss of all
    processes' images, so that the mean of their gradients equals the gradient of one process.
    """
    return all_reduce_sum(total) / all_reduce_sum(confidences.sum()).clamp_min(1)

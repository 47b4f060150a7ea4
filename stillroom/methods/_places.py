"""Predictions of two detectors that speak of the same places."""

from __future__ import annotations

from torch import Tensor

from stillroom.distributed.collectives import all_reduce_sum
from stillroom.methods._errors import BoxLocationsMismatch
from stillroom.methods.method import Method
from stillroom.types import Output


def alike(method: Method, student: Output, teacher: Output) -> None:
    """For `setup`: both must offer a box at equally many places.

    Raises:
        BoxLocationsMismatch: SR-M336 they don't.
    """
    ours, theirs = student.pred.shape[1], teacher.pred.shape[1]
    if ours != theirs:
        raise BoxLocationsMismatch(method=type(method).__name__, student=ours, theirs=theirs)


def confidence(teacher: Tensor) -> Tensor:
    """How sure each place is that it shows anything: the greatest score of its classes, [B, A, 4 + K] -> [B, A]."""
    return teacher[..., 4:].sigmoid().amax(2)


def shared(sum_: Tensor, confident: Tensor) -> Tensor:
    """sum_ / max(1, sum of `confident`), over all processes: about what one object costs.

    The label loss counts in the same way, so that weights can be compared. Each process charges the whole of what all
    of them hold, so that the mean of their gradients is that of one process.
    """
    return all_reduce_sum(sum_) / all_reduce_sum(confident.sum()).clamp_min(1)

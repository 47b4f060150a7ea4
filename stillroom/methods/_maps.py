"""Pairs of maps that a method compares place by place: found by their taps, checked once, brought to one grid."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.methods._errors import IncomparableFeatures, TapCountMismatch
from stillroom.methods._features import to_grid, to_map
from stillroom.methods.method import Method
from stillroom.types import Output


def pairs(method: Method, student: Output, teacher: Output) -> list[tuple[Tensor, Tensor]]:
    """The i-th tap of the student with the i-th of the teacher, as maps [B, C, h, w] and [B, D, H, W]."""
    named = zip(method.student_taps, method.teacher_taps, strict=True)
    return [(to_map(student.taps[s]), to_map(teacher.taps[t])) for s, t in named]


def comparable(
    method: Method, student: Output, teacher: Output, *, vectors: bool = True
) -> list[tuple[Tensor, Tensor]]:
    """`pairs`, for `setup`: what can't be compared is refused there.

    Args:
        method: whose taps are read.
        student: two images, seen by the student.
        teacher: the same, seen by the teacher.
        vectors: whether two vectors may be compared, as maps of one place.

    Raises:
        StillroomError: SR-M334 no taps, or unequal numbers; SR-M330 a vector is compared with places, or is of no use.
    """
    ours, theirs = method.student_taps, method.teacher_taps
    if len(ours) != len(theirs) or not ours:
        raise TapCountMismatch(method=type(method).__name__.lower(), student=len(ours), teacher=len(theirs))
    for s, t in zip(ours, theirs, strict=True):
        one, other = student.taps[s], teacher.taps[t]
        flat = [x.ndim == 2 for x in (one, other)]
        if flat[0] != flat[1] or (flat[0] and not vectors):
            why = "one is a vector, the other has places" if vectors else "it compares places, and a vector has none"
            raise IncomparableFeatures(student=s, teacher=t, s=list(one.shape), t=list(other.shape), why=why)
    return pairs(method, student, teacher)


def same_grid(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps at the size of the one with fewer places: the other is averaged down."""
    if student.shape[2] * student.shape[3] >= teacher.shape[2] * teacher.shape[3]:
        return to_grid(student, teacher), teacher
    return student, to_grid(teacher, student)


class Norm(nn.BatchNorm2d):
    """Batch norm that also takes one value a channel, which has no variance: that one by the running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] normalised over all but C."""
        if self.training and x.numel() <= x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)

"""Pairs of feature maps: read from their taps, checked once, resized to a common grid."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.methods._errors import IncomparableFeatures, TapCountMismatch
from stillroom.methods._features import to_grid, to_map
from stillroom.methods.method import Method
from stillroom.types import Output


def map_pairs(method: Method, student: Output, teacher: Output) -> list[tuple[Tensor, Tensor]]:
    """The i-th tap of the student with the i-th tap of the teacher, as maps [B, C, h, w] and [B, D, H, W]."""
    named = zip(method.student_taps, method.teacher_taps, strict=True)
    return [(to_map(student.taps[s]), to_map(teacher.taps[t])) for s, t in named]


def checked_map_pairs(
    method: Method, student: Output, teacher: Output, *, vectors: bool = True
) -> list[tuple[Tensor, Tensor]]:
    """`map_pairs`, for use in `setup`: taps that can't be compared are refused.

    Args:
        method: whose taps are read.
        student: the student's output for two images.
        teacher: the teacher's output for the same images.
        vectors: whether two vectors may be compared, as maps of size 1 x 1.

    Raises:
        StillroomError: SR-M334 no taps, or a different number on each side; SR-M330 a vector with a map, or vectors
            where these are not allowed.
    """
    student_taps, teacher_taps = method.student_taps, method.teacher_taps
    if len(student_taps) != len(teacher_taps) or not student_taps:
        counts = {"student": len(student_taps), "teacher": len(teacher_taps)}
        raise TapCountMismatch(method=type(method).__name__.lower(), **counts)
    for s, t in zip(student_taps, teacher_taps, strict=True):
        ours, theirs = student.taps[s], teacher.taps[t]
        is_vector = [x.ndim == 2 for x in (ours, theirs)]
        if is_vector[0] != is_vector[1] or (is_vector[0] and not vectors):
            why = "one is a vector, the other a map" if vectors else "it compares maps by position, and one is a vector"
            raise IncomparableFeatures(student=s, teacher=t, s=list(ours.shape), t=list(theirs.shape), why=why)
    return map_pairs(method, student, teacher)


def to_smaller_grid(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps at the size of the one with fewer positions; the other one is average-pooled."""
    if student.shape[2] * student.shape[3] >= teacher.shape[2] * teacher.shape[3]:
        return to_grid(student, teacher), teacher
    return student, to_grid(teacher, student)


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that also accepts a single value per channel.

    A single value has no variance, so it is normalised by the running statistics.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w], normalised over all axes but C."""
        if self.training and x.numel() <= x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)

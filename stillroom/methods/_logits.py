"""What every loss over logits starts with: half precision widened, pixels as rows, labels beside them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from stillroom.methods._errors import LabelsNotClasses
from stillroom.types import Batch, at_least_float32


def rows(logits: Tensor) -> Tensor:
    """[B, K] as it is, [B, K, ...] as [B * ..., K]: what holds for an image's classes holds for a pixel's."""
    return at_least_float32(logits) if logits.ndim == 2 else at_least_float32(logits).movedim(1, -1).flatten(0, -2)


def standardise(logits: Tensor) -> Tensor:
    """Every image's logits with mean 0 and standard deviation 1: (z - mean) / (std + 1e-7), classes on axis 1.

    The student then has to match the shape of the teacher's logits, not their size. Unchanged by z -> a z + b, a > 0.
    Sun et al. 2024, https://arxiv.org/abs/2403.01427, eq. 5; the standard deviation is the unbiased one, as in
    the authors' code. A row of equal logits becomes zeros.
    """
    z = at_least_float32(logits)
    if z.numel() == 0:
        return z
    return (z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-7)


def both(student: Tensor, teacher: Tensor, *, standardised: bool = False) -> tuple[Tensor, Tensor]:
    """The two networks' logits as rows [M, K], standardised where a method was asked to."""
    s, t = rows(student), rows(teacher)
    return (standardise(s), standardise(t)) if standardised else (s, t)


def labelled(batch: Batch, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [M, K], [M, K] and their labels [M]; rows without a label, which is negative, are left out.

    Only methods that treat the true class apart ask for this.

    Raises:
        LabelsNotClasses: SR-M332 the labels are not one class for each of the rows.
    """
    y = classes_of(batch.target, student)
    known = y >= 0
    return (student, teacher, y) if bool(known.all()) else (student[known], teacher[known], y[known])


def classes_of(target: Any, logits: Tensor) -> Tensor:
    """The labels of rows [M, K], [M]; negative where there is none.

    Raises:
        LabelsNotClasses: SR-M332 they are not one class for each of the rows.
    """
    if not isinstance(target, Tensor) or target.is_floating_point() or target.numel() != len(logits):
        shape = list(target.shape) if isinstance(target, Tensor) else type(target).__name__
        raise LabelsNotClasses(labels=shape, rows=len(logits))
    return target.flatten()

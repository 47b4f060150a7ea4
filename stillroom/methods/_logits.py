"""Common preparation of logits: widened to float32, with pixels as rows, and with the rows' labels."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from stillroom.methods._errors import LabelsNotClasses, StandardisedTwoClasses
from stillroom.types import Batch, at_least_float32


def rows(logits: Tensor) -> Tensor:
    """Logits [B, K] are unchanged; [B, K, ...] become [B * ..., K], one row per pixel."""
    return at_least_float32(logits) if logits.ndim == 2 else at_least_float32(logits).movedim(1, -1).flatten(0, -2)


def standardise(logits: Tensor) -> Tensor:
    """(z - mean) / (std + 1e-7) over the classes, axis 1: each image's logits get mean 0 and standard deviation 1.

    The student then matches the shape of the teacher's logits, but not their scale. Unchanged by z -> a z + b, a > 0.
    Sun et al. 2024, https://arxiv.org/abs/2403.01427, eq. 5; the standard deviation is the unbiased one, as in the
    authors' code. A row of equal logits becomes zeros.
    """
    z = at_least_float32(logits)
    if z.numel() == 0:
        return z
    return (z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-7)


def paired_rows(student: Tensor, teacher: Tensor, *, standardised: bool = False) -> tuple[Tensor, Tensor]:
    """Both networks' logits as rows [M, K], standardised if a method asks for it.

    Raises:
        StandardisedTwoClasses: SR-M339 it asks for it with K = 2.
    """
    s, t = rows(student), rows(teacher)
    if standardised and s.shape[1] == 2:
        raise StandardisedTwoClasses
    return (standardise(s), standardise(t)) if standardised else (s, t)


def labelled_rows(batch: Batch, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rows [M, K] of both networks that have a label, and the labels [M]. A row without a label has a negative one.

    For methods that treat the true class separately.

    Raises:
        LabelsNotClasses: SR-M332 there is not one class label for each row.
    """
    y = row_labels(batch.target, student)
    has_label = y >= 0
    return (student, teacher, y) if bool(has_label.all()) else (student[has_label], teacher[has_label], y[has_label])


def row_labels(target: Any, logits: Tensor) -> Tensor:
    """The labels [M] of rows [M, K]; negative for rows without a label.

    Raises:
        LabelsNotClasses: SR-M332 there is not one class label for each row.
    """
    if not isinstance(target, Tensor) or target.is_floating_point() or target.numel() != len(logits):
        shape = list(target.shape) if isinstance(target, Tensor) else type(target).__name__
        raise LabelsNotClasses(labels=shape, rows=len(logits))
    return target.flatten()

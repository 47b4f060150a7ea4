"""What one image of a batch is to another: directions, inner products, distances; with gradients where points meet."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from stillroom.distributed.collectives import gather_rows
from stillroom.methods._features import to_vector
from stillroom.methods.method import Method
from stillroom.types import Output


def unit(x: Tensor) -> Tensor:
    """Directions: x / |x| along the last axis. A zero vector stays zero, with gradient zero, not 1 / eps or NaN."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / length.masked_fill(length == 0, torch.inf)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Products a b^T over the last two axes: [..., N, D], [..., M, D] -> [..., N, M].

    In the precision of a and b whatever autocast says: what is compared here are differences of such products, of
    which eight bits leave nothing.
    """
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.transpose(-1, -2)


def relative_distances(x: Tensor) -> Tensor:
    """|x_i - x_j| over the mean of those that are not 0: [B, D] -> [B, B]. All zeros where all points meet."""
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distance.sum() / (distance > 0).sum().clamp_min(1)  # 1: no pair is apart
    return distance / mean.masked_fill(mean == 0, torch.inf)


def vectors(method: Method, student: Output, teacher: Output) -> Iterator[tuple[Tensor, Tensor]]:
    """For every pair of a method's taps the vectors [B, D] and [B, D'] of all processes' images."""
    for ours, theirs in zip(method.student_taps, method.teacher_taps, strict=True):
        yield gather_rows(to_vector(student.taps[ours])), gather_rows(to_vector(teacher.taps[theirs]))

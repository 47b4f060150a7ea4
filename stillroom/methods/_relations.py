"""Relations between the images of a batch, with gradients at coinciding points."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from stillroom.distributed.collectives import gather_rows
from stillroom.methods._features import to_vector
from stillroom.methods.method import Method
from stillroom.types import Output


def unit(x: Tensor) -> Tensor:
    """Directions x / |x| along the last axis. A zero vector stays zero, with gradient zero and not 1 / eps or NaN."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / length.masked_fill(length == 0, torch.inf)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner products a b^T over the last two axes: [..., N, D], [..., M, D] -> [..., N, M].

    In the dtype of a and b, also under autocast: methods compare differences of such products, for which half precision
    is too coarse.
    """
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.transpose(-1, -2)


def relative_distances(x: Tensor) -> Tensor:
    """|x_i - x_j| over the mean of those above 0: [B, D] -> [B, B]. All zeros where all points coincide."""
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distance.sum() / (distance > 0).sum().clamp_min(1)  # avoids 0 / 0 where all points coincide
    return distance / mean.masked_fill(mean == 0, torch.inf)


def vector_pairs(method: Method, student: Output, teacher: Output) -> Iterator[tuple[Tensor, Tensor]]:
    """For each pair of a method's taps, the vectors [B, D] and [B, D'] of the images of all processes."""
    for s, t in zip(method.student_taps, method.teacher_taps, strict=True):
        yield gather_rows(to_vector(student.taps[s])), gather_rows(to_vector(teacher.taps[t]))

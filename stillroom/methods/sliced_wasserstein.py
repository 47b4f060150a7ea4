"""Match the batch's cloud of features. Bonneel et al. 2015, https://doi.org/10.1007/s10851-014-0506-3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.distributed.collectives import gather_rows
from stillroom.methods._checks import at_least
from stillroom.methods._features import to_vector
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32


def sliced_wasserstein_loss(student: Tensor, teacher: Tensor, directions: Tensor) -> Tensor:
    """SW2^2 = mean over directions u and ranks k of (sort(student u)_k - sort(teacher u)_k)^2.

    In one dimension the best transport between two sets of equal size takes the k-th smallest to the k-th smallest;
    seen along many directions, that compares sets in any dimension. Which student's row belongs to which teacher's
    does not count. Moving one set by d costs |d|^2 / D on average.

    Args:
        student: [B, D], a set of B points.
        teacher: [B, D], another of as many.
        directions: [L, D] of length 1, from `draw`.

    Returns:
        Scalar, at least 0, in squared units of the features; 0 when the sets are equal in any order. An empty batch
        costs 0. Products are never in half precision.
    """
    if student.numel() == 0:
        return student.sum()
    with torch.autocast(student.device.type, enabled=False):
        s, t = (at_least_float32(x) @ directions.to(at_least_float32(x).dtype).T for x in (student, teacher))
    return (s.sort(0).values - t.sort(0).values).square().mean()


def draw(number: int, like: Tensor) -> Tensor:
    """Directions [number, D] spread evenly over the sphere, beside the points `like` [B, D]."""
    return F.normalize(torch.randn(number, like.shape[1], device=like.device, dtype=like.dtype), dim=1)


class SlicedWasserstein(Method):
    """Transport between the student's and the teacher's features of a whole batch, along random directions.

    Differs: the distance is the paper's; as a method of distillation it has no authors, and so no weight of theirs: 1
    here. A linear layer brings the student to the teacher's width. Several pairs of taps are averaged.

    Use: beside a method of predictions, to give the student's features the teacher's distribution without a demand on
    any single image; it asks less than `fitnet` does.

    Avoid: alone: it does not say which image is where, so it teaches no class. With small batches (below 32 or so) a
    cloud says little. Features hurt across families.

    Args:
        directions: drawn anew each step, at least 1; 50 to 500 are usual.
        student_taps: where the student is read, averaged over places. Left out: what its classifier reads.
        teacher_taps: where the teacher is read; the i-th is compared with the student's i-th.

    Raises:
        ValueError: fewer than one direction.
    """

    reads = "vector"

    def __init__(
        self, *, directions: int = 100, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()
    ):
        super().__init__()
        at_least(1, directions=directions)
        self.directions = directions
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.regress = nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Size a linear layer for each pair."""
        self.regress = nn.ModuleList()
        for s, t in zip(self.student_taps, self.teacher_taps, strict=True):
            ours, theirs = to_vector(student.taps[s]), to_vector(teacher.taps[t])
            self.regress.append(nn.Linear(ours.shape[1], theirs.shape[1]).to(ours.device))

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"transport": ...}`, see `sliced_wasserstein_loss`; over the batch of all processes."""
        charged = []
        for regress, s, t in zip(self.regress, self.student_taps, self.teacher_taps, strict=True):
            ours, theirs = at_least_float32(regress(to_vector(student.taps[s]))), to_vector(teacher.taps[t])
            same = gather_rows(draw(self.directions, theirs))[: self.directions]  # the first process's, in all of them
            charged.append(sliced_wasserstein_loss(gather_rows(ours), gather_rows(theirs), same))
        return {"transport": torch.stack(charged).mean()}

"""Match the distribution of a batch's features. Bonneel et al. 2015, https://doi.org/10.1007/s10851-014-0506-3."""

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

    In one dimension the optimal transport between two sets of equal size maps the k-th smallest element to the k-th
    smallest; projections on many directions compare sets in any dimension. The order of the rows has no effect.
    Translating one set by d gives |d|^2 / D on average.

    Args:
        student: [B, D], a set of B points.
        teacher: [B, D], another set of B points.
        directions: [L, D] of length 1, from `random_directions`.

    Returns:
        Scalar, at least 0, in squared units of the features; 0 for equal sets, and for an empty batch. Products are
        computed in at least float32.
    """
    if student.numel() == 0:
        return student.sum()
    with torch.autocast(student.device.type, enabled=False):
        s, t = (at_least_float32(x) @ directions.to(at_least_float32(x).dtype).T for x in (student, teacher))
    return (s.sort(0).values - t.sort(0).values).square().mean()


def random_directions(number: int, like: Tensor) -> Tensor:
    """Directions [number, D], uniform on the sphere, with the dtype and device of the points `like` [B, D]."""
    return F.normalize(torch.randn(number, like.shape[1], device=like.device, dtype=like.dtype), dim=1)


class SlicedWasserstein(Method):
    """Sliced Wasserstein distance between the student's and the teacher's features of a batch.

    Differs: the distance is the paper's; it was not proposed for distillation, so there is no published weight: it is 1
    here. A linear layer maps the student's features to the teacher's width. Several pairs of taps are averaged.

    Use: together with a method of predictions, to match the distribution of features without a constraint on single
    images; a weaker constraint than `fitnet`.

    Avoid: alone: features are not matched image by image, so no class is learned. With small batches (below about 32)
    the distribution is poorly sampled. Feature losses reduce the accuracy across families.

    Args:
        directions: number of directions, drawn in each step, at least 1; 50 to 500 are usual.
        student_taps: features of the student, averaged over positions; if empty, the input of its classifier.
        teacher_taps: features of the teacher; the i-th is compared with the student's i-th.

    Raises:
        ValueError: fewer than one direction.
    """

    default_taps = "vector"

    def __init__(
        self, *, directions: int = 100, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()
    ):
        super().__init__()
        at_least(1, directions=directions)
        self.directions = directions
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.regress = nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Build a linear layer for each pair."""
        self.regress = nn.ModuleList()
        for s, t in zip(self.student_taps, self.teacher_taps, strict=True):
            ours, theirs = to_vector(student.taps[s]), to_vector(teacher.taps[t])
            self.regress.append(nn.Linear(ours.shape[1], theirs.shape[1]).to(ours.device))

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"transport": ...}`, see `sliced_wasserstein_loss`; over the batch of all processes."""
        losses = []
        for regress, s, t in zip(self.regress, self.student_taps, self.teacher_taps, strict=True):
            ours, theirs = at_least_float32(regress(to_vector(student.taps[s]))), to_vector(teacher.taps[t])
            # The directions of the first process, in all of them.
            directions = gather_rows(random_directions(self.directions, theirs))[: self.directions]
            losses.append(sliced_wasserstein_loss(gather_rows(ours), gather_rows(theirs), directions))
        return {"transport": torch.stack(losses).mean()}

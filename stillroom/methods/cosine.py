"""Point where the teacher points. Ranzinger et al. 2024 (AM-RADIO), https://arxiv.org/abs/2312.06709."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.methods._features import to_vector
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean(1 - s t / (|s| |t|)) over images.

    Args:
        student: [B, D].
        teacher: [B, D].

    Returns:
        Scalar in 0..2; 0 where every vector points where the teacher's does, 1 at right angles. A vector of zeros
        counts as at a right angle to all. An empty batch costs 0.
    """
    if student.numel() == 0:
        return student.sum()
    return 1 - F.cosine_similarity(at_least_float32(student), at_least_float32(teacher), dim=1, eps=1e-8).mean()


class Cosine(Method):
    """The student's pooled vector in the teacher's direction, length left free.

    Differs: the authors learn from several teachers at once, with a projector for each. Here a linear one stands
    between only where the widths differ. Several pairs of taps are averaged.

    Use: embeddings, which are compared by cosine anyway. Where the widths are equal the student's vectors live in the
    teacher's space: one can search the teacher's index.

    Avoid: where lengths mean something, as in front of a classifier; `simreg` keeps them. Every teacher vector near
    the same direction teaches little: then look at `rkd`, which compares images with each other.

    Args:
        student_taps: where the student is read, averaged over places; () has what its head reads found.
        teacher_taps: where the teacher is read; the i-th is compared with the i-th.
    """

    weight = 1.0
    reads = "vector"

    def __init__(self, *, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.align = nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Align widths where they differ."""
        self.align = nn.ModuleList()
        for s, t in zip(self.student_taps, self.teacher_taps, strict=True):
            ours, theirs = to_vector(student.taps[s]), to_vector(teacher.taps[t])
            same = ours.shape[1] == theirs.shape[1]
            made = nn.Identity() if same else nn.Linear(ours.shape[1], theirs.shape[1])
            self.align.append(made.to(ours.device))

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"angle": ...}`, see `cosine_loss`."""
        named = zip(self.align, self.student_taps, self.teacher_taps, strict=True)
        charged = [cosine_loss(align(to_vector(student.taps[s])), to_vector(teacher.taps[t])) for align, s, t in named]
        return {"angle": torch.stack(charged).mean()}

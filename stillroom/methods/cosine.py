"""Match the direction of pooled vectors. Ranzinger et al. 2024 (AM-RADIO), https://arxiv.org/abs/2312.06709."""

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
        Scalar in 0..2; 0 for equal directions, 1 for orthogonal vectors and for vectors of zeros; 0 for an empty batch.
    """
    if student.numel() == 0:
        return student.sum()
    return 1 - F.cosine_similarity(at_least_float32(student), at_least_float32(teacher), dim=1, eps=1e-8).mean()


class Cosine(Method):
    """The student's pooled vector should have the direction of the teacher's; its length is free.

    Differs: the authors distil several teachers at once, each with a projector. Here a linear layer is used only where
    the widths differ. Several pairs of taps are averaged.

    Use: embeddings, which are compared by cosine. With equal widths the student's vectors are in the teacher's space,
    and can be searched in the teacher's index.

    Avoid: where the length carries information, as before a classifier; `simreg` keeps it. If all of the teacher's
    vectors have nearly the same direction, the loss carries little information: see `rkd`, which compares images with
    each other.

    Args:
        student_taps: features of the student, averaged over positions; if empty, the input of its head.
        teacher_taps: features of the teacher; the i-th is compared with the student's i-th.
    """

    weight = 1.0
    default_taps = "vector"

    def __init__(self, *, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.align = nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Build a linear layer for each pair of different widths."""
        self.align = nn.ModuleList()
        for s, t in zip(self.student_taps, self.teacher_taps, strict=True):
            ours, theirs = to_vector(student.taps[s]), to_vector(teacher.taps[t])
            same = ours.shape[1] == theirs.shape[1]
            layer = nn.Identity() if same else nn.Linear(ours.shape[1], theirs.shape[1])
            self.align.append(layer.to(ours.device))

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"angle": ...}`, see `cosine_loss`."""
        named = zip(self.align, self.student_taps, self.teacher_taps, strict=True)
        losses = [cosine_loss(align(to_vector(student.taps[s])), to_vector(teacher.taps[t])) for align, s, t in named]
        return {"angle": torch.stack(losses).mean()}

"""Regress one inner feature onto the teacher's. Romero et al. 2015, https://arxiv.org/abs/1412.6550, eq. 3."""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.errors import Failure
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean((student - teacher)^2) over all elements, the student's map pooled or stretched to the teacher's size.

    Args:
        student: [B, C, h, w], [B, N, D] or [B, D], already as wide as the teacher.
        teacher: the same kind, [B, C, H, W], [B, N, D] or [B, D].

    Returns:
        Scalar, at least 0; 0 when the features are equal. The paper has 1/2 of the squared norm; the mean, as in
        the reference code people use, keeps the weight independent of the map's size.
    """
    if student.ndim == 4 and student.shape[2:] != teacher.shape[2:]:
        student = F.adaptive_avg_pool2d(student, (teacher.shape[2], teacher.shape[3]))
    return F.mse_loss(student.float(), teacher.float())


class FitNet(Method):
    """Hint learning: a 1x1 convolution, or a linear layer for tokens, brings the student to the teacher's width.

    Differs from the paper in training hint and task together instead of one after the other.

    Args:
        student_tap: name of a module of the student, such as "layer2".
        teacher_tap: name of a module of the teacher that speaks of the same places.

    Raises:
        Failure: SR-M330, in `setup`, when one feature is a map and the other is not, or the tokens differ in number.
    """

    weight = 100.0

    def __init__(self, *, student_tap: str, teacher_tap: str):
        super().__init__()
        self.student_tap, self.teacher_tap = student_tap, teacher_tap
        self.student_taps, self.teacher_taps = (student_tap,), (teacher_tap,)
        self.regress: nn.Module = nn.Identity()

    def setup(self, student: Output, teacher: Output) -> None:
        """Size the regressor."""
        s, t = student.taps[self.student_tap], teacher.taps[self.teacher_tap]
        if s.ndim != t.ndim or (s.ndim == 3 and s.shape[1] != t.shape[1]):
            raise Failure(
                "SR-M330", student=self.student_tap, teacher=self.teacher_tap, s=list(s.shape), t=list(t.shape)
            )
        self.regress = nn.Conv2d(s.shape[1], t.shape[1], 1) if s.ndim == 4 else nn.Linear(s.shape[-1], t.shape[-1])

    def project(self, output: Output) -> Output:
        """The student's tap, as wide as the teacher's."""
        return replace(output, taps=output.taps | {self.student_tap: self.regress(output.taps[self.student_tap])})

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"hint": ...}`, see `hint_loss`."""
        return {"hint": hint_loss(student.taps[self.student_tap], teacher.taps[self.teacher_tap])}

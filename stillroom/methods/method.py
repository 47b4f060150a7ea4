"""The contract of a distillation method: which features it needs, what it learns, what it charges."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from stillroom.types import Batch, Output, Terms


class Method(nn.Module):
    """What the student is asked to imitate.

    Override `loss`. Override `setup` and `project` only if something has to be learned besides the student.
    A method's parameters are trained, clipped and saved with the student, and left out of its file.

    Attributes:
        weight: the authors' weight of this loss, used where a recipe gives none.
        student_taps, teacher_taps: names of the inner features that `loss` reads.
    """

    weight: ClassVar[float] = 1.0
    student_taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()

    def setup(self, student: Output, teacher: Output) -> None:
        """Build what needs sizes. Both outputs come from real images: read shapes off them."""

    def project(self, output: Output) -> Output:
        """Map a student's output into the space where the teacher's lives. Trainable."""
        return output

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """Charge the student: raw, unweighted scalars by name. `student` went through `project`.

        Args:
            student: of this batch, with gradient.
            teacher: of the same pixels, without.
            batch: what both looked at.
            progress: 0 at the first step, 1 at the last.
        """
        raise NotImplementedError

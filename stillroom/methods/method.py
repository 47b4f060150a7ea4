"""The contract of a distillation method: which features it needs, what it learns, what it charges."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

from torch import nn

from stillroom.types import Batch, Output, OutputKind, Terms

Reads = Literal["pred", "vector", "last", "middle", "stages", "edges", "blocks", "attention", "members"]
"""Where in the two networks a method looks, when the recipe names no taps. `pairing` finds the places:

pred: at no tap, the predictions are enough.     vector: at what the classifiers read, pooled, [B, D].
last: at the last map or tokens.                 middle: at the one half-way.
stages: at the end of every stage, shallow to deep.
edges: as `stages`, before the stage's last activation, where there is one.
blocks: at a ViT's first, second and last block.  attention: at what a ViT's last attention computes q, k and v with.
members: as `vector`, a pair for each of several teachers, or for the only one; "" where no part can be heard.
"""


class Method(nn.Module):
    """What the student is asked to imitate.

    Override `loss`. Override `setup` and `project` only if something has to be learned besides the student.
    A method's parameters are trained, clipped and saved with the student, and left out of its file.

    Attributes:
        weight: the authors' weight of this loss, used where a recipe gives none.
        reads: where it looks.
        needs_labels: whether it teaches nothing where nobody knows an image's class.
        output_kind: kinds of networks that it can teach; a method of predictions must say what it makes of other ones.
        student_taps, teacher_taps: names of the inner features that `loss` reads; the i-th of one side is compared
            with the i-th of the other.
    """

    weight: ClassVar[float] = 1.0
    reads: ClassVar[Reads] = "pred"
    needs_labels: ClassVar[bool] = False
    output_kind: ClassVar[tuple[OutputKind, ...]] = ()
    student_taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()

    @classmethod
    def teaches(cls, output_kind: OutputKind) -> bool:
        """Whether networks that say `answers` can learn from it: features are features whatever is said at the end."""
        return output_kind in (
            cls.output_kind or (("classes", "pixels") if cls.reads == "pred" else get_args(OutputKind))
        )

    def connect(self, student: tuple[str, ...], teacher: tuple[str, ...]) -> None:
        """Take the taps that were found for it. A method that reads one side only keeps the other empty."""
        self.student_taps, self.teacher_taps = student, teacher

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

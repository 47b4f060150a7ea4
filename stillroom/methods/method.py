"""The contract of a distillation method: the features it reads, its trainable modules and its loss."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

from torch import nn

from stillroom.types import Batch, Output, OutputKind, Terms

DefaultTaps = Literal["pred", "vector", "last", "middle", "stages", "edges", "blocks", "attention", "members"]
"""Where the taps of a method are, when the recipe names none. `matching/layer_pairs.py` finds them:

pred: nowhere, the predictions are enough.
vector: the pooled input of the classifier, [B, D].
last: the last map or tokens.
middle: the map or tokens half-way.
stages: the end of each stage, from shallow to deep.
edges: as `stages`, before the stage's last activation, where there is one.
blocks: a ViT's first, second and last block.
attention: the q, k and v of a ViT's last attention.
members: as `vector`, one pair for each of several teachers, or for the only one; "" for a network without such a tap.
"""


class Method(nn.Module):
    """One objective of distillation: a loss between student and teacher.

    Override `loss`. Override `setup` and `project` only if the method has trainable modules besides the student. These
    are trained, clipped and saved together with the student, and left out of the student's exported file.

    Attributes:
        weight: the authors' weight of this loss, used where a recipe gives none.
        default_taps: where its taps are, when the recipe names none.
        needs_labels: whether its loss is 0 for images without a label.
        output_kinds: kinds of predictions that it supports, see `supports`.
        student_taps, teacher_taps: names of the inner features that `loss` reads; the i-th of the student is compared
            with the i-th of the teacher.
    """

    weight: ClassVar[float] = 1.0
    default_taps: ClassVar[DefaultTaps] = "pred"
    needs_labels: ClassVar[bool] = False
    output_kinds: ClassVar[tuple[OutputKind, ...]] = ()
    student_taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()

    @classmethod
    def supports(cls, output_kind: OutputKind) -> bool:
        """Whether it can distil networks with this kind of predictions.

        Where `output_kinds` is empty: a method that compares features supports all kinds, one that compares predictions
        supports logits, of classes and of pixels.
        """
        usual = ("classes", "pixels") if cls.default_taps == "pred" else get_args(OutputKind)
        return output_kind in (cls.output_kinds or usual)

    def bind_taps(self, student: tuple[str, ...], teacher: tuple[str, ...]) -> None:
        """Set the taps that were found. A method that reads one side only leaves the other empty."""
        self.student_taps, self.teacher_taps = student, teacher

    def setup(self, student: Output, teacher: Output) -> None:
        """Build the modules whose sizes depend on the features. Both outputs come from real images."""

    def project(self, output: Output) -> Output:
        """Map a student's output into the teacher's feature space, by trainable modules."""
        return output

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """Raw, unweighted scalar losses by name. `student` went through `project`.

        Args:
            student: output for this batch, with gradients.
            teacher: output for the same pixels, without gradients.
            batch: the images and their targets.
            progress: 0 at the first step, 1 at the last.
        """
        raise NotImplementedError

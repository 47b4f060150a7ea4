"""A head of its own learns from the teacher. Touvron et al. 2021, https://arxiv.org/abs/2012.12877, section 4."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from stillroom.methods._checks import above, one_of
from stillroom.methods._errors import NoTapFound
from stillroom.methods._logits import paired_rows
from stillroom.methods.hard import hard_loss
from stillroom.methods.hinton import hinton_loss
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms

Kind = Literal["hard", "soft"]


def deit_loss(distilled: Tensor, teacher: Tensor, kind: Kind = "hard", temperature: float = 3.0) -> Tensor:
    """hard: cross-entropy of the distillation head with argmax teacher. soft: T^2 KL(teacher / T || head / T).

    Args:
        distilled: logits [B, K] of the distillation head.
        teacher: logits [B, K].
        kind: hard or soft.
        temperature: above 0, in units of logits; the hard kind has none.

    Returns:
        Scalar in nats, at least 0. 0 for soft when the distributions agree; near 0 for hard when the head is sure of
        each of the teacher's choices. An empty batch costs 0.
    """
    return hard_loss(distilled, teacher) if kind == "hard" else hinton_loss(distilled, teacher, temperature)


class DeiT(Method):
    """The distillation token: a second token and head of a ViT imitate the teacher, while the first learn the labels.

    Differs: the soft kind is a mean over images, as `hinton`; the authors' code divides by the number of classes as
    well, so at one weight theirs is K times weaker. Their command line has temperature 1 by default, their paper 3,
    with a weight of 0.1. The hard kind: nothing known.

    Use: with a ViT as student: `student.distilled = true` gives any of timm's with a class token the second token and
    head; timm's own distilled DeiTs have them. Set `task.weight = 0.5` beside it: the authors give the labels
    1 - weight. The best teacher is a CNN (83.4 for DeiT-B with a RegNetY teacher; 81.8 without).

    Avoid: for students that are no ViTs, where `hard` is the same loss on the one head.

    Args:
        kind: hard, the teacher's choice as a label; or soft, its probabilities.
        temperature: above 0; of the soft kind.
        standardised: standardise both networks' logits first.
        student_taps: the head that learns from the teacher, as the student calls it.

    Raises:
        ValueError: no such kind, the temperature is not above 0, or there is not one tap.
        NoTapFound: SR-M333 the student has no such head.
    """

    weight = 0.5

    def __init__(
        self,
        *,
        kind: Kind = "hard",
        temperature: float = 3.0,
        standardised: bool = False,
        student_taps: tuple[str, ...] = ("head_dist",),
    ):
        super().__init__()
        one_of(Kind, kind=kind)
        above(0, temperature=temperature)
        if len(student_taps) != 1:
            raise ValueError(f"student_taps must be one tap, got {list(student_taps)}")
        self.kind, self.temperature, self.standardised = kind, temperature, standardised
        self.student_taps = tuple(student_taps)

    def bind_taps(self, student: tuple[str, ...], teacher: tuple[str, ...]) -> None:
        """Keep its own tap: it reads a head, which nobody has to look for, and of the teacher the predictions."""

    def setup(self, student: Output, teacher: Output) -> None:
        """See that the head answers as the teacher does."""
        (tap,) = self.student_taps
        said = student.taps.get(tap)
        if said is None or said.shape[1:] != teacher.pred.shape[1:]:
            found = "has no part of that name" if said is None else f"gives {list(said.shape)}"
            raise NoTapFound(
                method="deit",
                side="student",
                network=f"where {tap!r} {found}",
                why=f"it teaches a second head of {teacher.pred.shape[1]} outputs; set student.distilled = true",
            )

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{kind: ...}`, see `deit_loss`."""
        head, t = paired_rows(student.taps[self.student_taps[0]], teacher.pred, standardised=self.standardised)
        return {self.kind: deit_loss(head, t, self.kind, self.temperature)}

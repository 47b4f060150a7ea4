"""Distil into a separate head. Touvron et al. 2021 (DeiT), https://arxiv.org/abs/2012.12877, section 4."""

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
        temperature: T, above 0, in units of logits; hard does not use it.

    Returns:
        Scalar in nats, at least 0. soft: 0 for equal distributions. hard: near 0 when the head's probability of each of
        the teacher's predictions is near 1. 0 for an empty batch.
    """
    return hard_loss(distilled, teacher) if kind == "hard" else hinton_loss(distilled, teacher, temperature)


class DeiT(Method):
    """Distillation token: a second token and head of a ViT learn from the teacher, the first ones from the labels.

    Differs: soft is a mean over images, like `hinton`; the authors' code also divides by the number of classes, so that
    with the same weight it is K times smaller. Their command line has temperature 1 by default, their paper 3 with a
    weight of 0.1. Hard: no known difference.

    Use: with a ViT as student: `student.distilled = true` gives any ViT of timm with a class token a second token and
    head; timm's distilled DeiTs already have them. Set `task.weight = 0.5`: the authors give the labels 1 - weight. The
    best teacher is a CNN (83.4 for DeiT-B with a RegNetY as teacher; 81.8 without).

    Avoid: for students that are not ViTs: there `hard` is the same loss on their only head.

    Args:
        kind: hard, the teacher's predicted class as the label; or soft, its probabilities.
        temperature: above 0; of soft.
        standardised: standardise both networks' logits first.
        student_taps: name of the distillation head in the student.

    Raises:
        ValueError: no such kind, the temperature is not above 0, or there is not exactly one tap.
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
        """Keep the tap of the distillation head. Of the teacher only the predictions are used."""

    def setup(self, student: Output, teacher: Output) -> None:
        """Check that the head has the teacher's classes."""
        (tap,) = self.student_taps
        head = student.taps.get(tap)
        if head is None or head.shape[1:] != teacher.pred.shape[1:]:
            found = "has no part of that name" if head is None else f"has shape {list(head.shape)}"
            raise NoTapFound(
                method="deit",
                side="student",
                network=f"where {tap!r} {found}",
                why=f"it distils into a second head of {teacher.pred.shape[1]} outputs; set student.distilled = true",
            )

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{kind: ...}`, see `deit_loss`."""
        head, t = paired_rows(student.taps[self.student_taps[0]], teacher.pred, standardised=self.standardised)
        return {self.kind: deit_loss(head, t, self.kind, self.temperature)}

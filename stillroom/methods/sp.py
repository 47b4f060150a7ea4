"""Match similarities between the images of a batch. Tung, Mori 2019, https://arxiv.org/abs/1907.09682, eqs. 2-4."""

from __future__ import annotations

import torch
from torch import Tensor

from stillroom.distributed.collectives import gather_rows
from stillroom.methods._features import to_map
from stillroom.methods._relations import inner, unit
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32


def sp_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """||G_t - G_s||_F^2 / B^2, G = F F^T with each row normalised to length 1; the rows of F are the images' features.

    Args:
        student: [B, ...], any shape after B.
        teacher: [B, ...], of the same images; its shape may differ.

    Returns:
        Scalar in 0..4/B; 0 for equal similarities, so under any rotation and scaling of the features, for one image,
        and for an empty batch. An image whose features are all zeros has similarity 0 with all others, and no gradient.
    """
    s, t = at_least_float32(student).flatten(1), at_least_float32(teacher).flatten(1)
    return (unit(inner(t, t)) - unit(inner(s, s))).square().mean() if len(s) else s.sum()


class SP(Method):
    """Similarity-preserving: images with similar features in the teacher should have similar features in the student.

    Differs: no known difference. For ViTs the patch tokens are used, without class token and registers.

    Use: for networks with nothing else in common: width and map size may differ, and there are no trainable modules. On
    CIFAR-100 it also helped across families (ResNet-50 to MobileNetV2: 68.08, 64.60 without a teacher; Tian et al.
    2020).

    Avoid: with few images per step: the loss decreases with the batch size, and compares the images of one batch only.
    With several processes, maps are gathered from all of them.

    Args:
        student_taps: maps or tokens of the student; if empty, the last.
        teacher_taps: maps or tokens of the teacher; the i-th is compared with the student's i-th.
    """

    weight = 3000.0
    default_taps = "last"

    def __init__(self, *, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"similarity": ...}`: `sp_loss` summed over the taps."""
        losses = [
            sp_loss(gather_rows(to_map(student.taps[ours])), gather_rows(to_map(teacher.taps[theirs])))
            for ours, theirs in zip(self.student_taps, self.teacher_taps, strict=True)
        ]
        return {"similarity": torch.stack(losses).sum()}

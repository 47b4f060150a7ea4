"""Match which images of a batch are alike. Tung, Mori 2019, https://arxiv.org/abs/1907.09682, eqs. 2-4."""

from __future__ import annotations

import torch
from torch import Tensor

from stillroom.distributed.collectives import gather_rows
from stillroom.methods._features import to_map
from stillroom.methods._relations import inner, unit
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32


def sp_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """||G_t - G_s||_F^2 / B^2, G = F F^T with every row divided by its length, F = an image's feature in one row.

    Args:
        student: [B, ...], any shape behind B.
        teacher: [B, ...], of the same images; its shape need not be the student's.

    Returns:
        Scalar, 0..4/B; 0 where the two see the images equally alike, so for any rotation and scaling of the features,
        and for one image. An image whose feature is all zeros is like no other, and gives no gradient.
    """
    s, t = at_least_float32(student).flatten(1), at_least_float32(teacher).flatten(1)
    return (unit(inner(t, t)) - unit(inner(s, s))).square().mean() if len(s) else s.sum()


class SP(Method):
    """Similarity-preserving: two images that excite the teacher alike should excite the student alike.

    Differs: nothing known. Of a ViT the patch tokens are taken, without class token and registers.

    Use: where the two networks have nothing else in common: neither width nor the map's size has to agree, and there is
    nothing to train beside the student. On CIFAR-100 it still helped across families (ResNet-50 to MobileNetV2: 68.08,
    64.60 without a teacher; Tian et al. 2020).

    Avoid: with few images a step: the loss shrinks with the batch, and compares only what is in it. Under several
    processes it sends whole maps around, so that the batch is one.

    Args:
        student_taps: maps or tokens of the student; the last is found where both are left out.
        teacher_taps: the teacher's, the i-th compared with the i-th.
    """

    weight = 3000.0
    reads = "last"

    def __init__(self, *, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"similarity": ...}`, see `sp_loss`; summed over the taps."""
        losses = [
            sp_loss(gather_rows(to_map(student.taps[ours])), gather_rows(to_map(teacher.taps[theirs])))
            for ours, theirs in zip(self.student_taps, self.teacher_taps, strict=True)
        ]
        return {"similarity": torch.stack(losses).sum()}

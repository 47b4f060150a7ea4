"""Match pooled features through a rotation. Miles, Elezi, Deng 2024 (VkD), https://arxiv.org/abs/2403.06213, sec. 3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from stillroom.methods._features import to_vector
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32


def vkd_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean(smooth_l1(student - layer_norm(teacher))), smooth_l1(x) = x^2 / 2 where |x| < 1, else |x| - 1/2.

    The teacher's vectors are brought to mean 0 and variance 1, each on its own, without learned scales: no one of
    their channels outweighs the others, and the student cannot shrink the loss by a shortcut through scales.

    Args:
        student: [B, D], after the projection.
        teacher: [B, D], pooled.

    Returns:
        Scalar, at least 0; 0 when the student's vectors are the normalised teacher's. An empty batch costs 0.
    """
    if student.numel() == 0:
        return student.sum()
    t = at_least_float32(teacher)
    return F.smooth_l1_loss(at_least_float32(student), F.layer_norm(t, t.shape[1:]))


class Isometry(nn.Module):
    """z [B, inputs] -> z P^T [B, outputs], P with orthonormal columns at every step: lengths and angles survive.

    Where there are more inputs than outputs P has orthonormal rows instead: a rotation, and then some of its
    coordinates. P is what Cayley's map makes of a skew matrix, times a fixed random P. That map keeps P orthonormal
    whatever the optimiser does; `householder`, torch's choice where P is not square, drops to P = 0 at the first step
    with weight decay. P and its product are never in half precision, in which orthonormality would be lost.

    Args:
        inputs: width of z.
        outputs: width of the result.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear = orthogonal(nn.Linear(inputs, outputs, bias=False), orthogonal_map="cayley")

    def forward(self, z: Tensor) -> Tensor:
        """In the dtype of `z`, at least float32."""
        with torch.autocast(z.device.type, enabled=False):
            return self.linear(at_least_float32(z))


class VkD(Method):
    """The student's pooled features, rotated, beside the teacher's, normalised.

    Differs: the authors let a distillation token learn the predictions beside this (KL at temperature 1); here that is
    a method of its own, `hinton` with temperature 1 and weight 1. For generators they whiten the teacher instead of
    normalising it, which is not here. The map behind P is Cayley's, see `Isometry`. Several pairs of taps are averaged.

    Use: from any teacher to a ViT, or between ViTs: the cleanest loss of features. The projector has no freedom to do
    the student's work, and costs nothing after training. The authors: DeiT-Ti 78.3, DeiT-S 82.3 on ImageNet.

    Avoid: where the student is much wider than the teacher: the part that P drops is not taught. With widths in the
    thousands on a processor: a step solves a system as wide as the wider of the two.

    Args:
        student_taps: where the student is read, averaged over places or patch tokens. Left out on both sides: the last.
        teacher_taps: where the teacher is read; the i-th is compared with the student's i-th.
    """

    weight = 1.0
    reads = "last"

    def __init__(self, *, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.rotate = nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Size a rotation for each pair."""
        self.rotate = nn.ModuleList()
        for s, t in zip(self.student_taps, self.teacher_taps, strict=True):
            ours, theirs = to_vector(student.taps[s]), to_vector(teacher.taps[t])
            self.rotate.append(Isometry(ours.shape[1], theirs.shape[1]).to(ours.device))

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"features": ...}`, see `vkd_loss`."""
        charged = [
            vkd_loss(rotate(to_vector(student.taps[s])), to_vector(teacher.taps[t]))
            for rotate, s, t in zip(self.rotate, self.student_taps, self.teacher_taps, strict=True)
        ]
        return {"features": torch.stack(charged).mean()}

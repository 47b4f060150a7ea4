"""Match pooled features by a rotation. Miles, Elezi, Deng 2024 (VkD), https://arxiv.org/abs/2403.06213, sec. 3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from stillroom.methods._features import to_vector
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32


def vkd_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean(smooth_l1(student - layer_norm(teacher))), smooth_l1(x) = x^2 / 2 for |x| < 1, otherwise |x| - 1/2.

    Each of the teacher's vectors is normalised to mean 0 and variance 1, without learned scales, so that no channel
    dominates and the student cannot lower the loss by changing scales.

    Args:
        student: [B, D], after the projection.
        teacher: [B, D], pooled.

    Returns:
        Scalar, at least 0; 0 where the student's vectors equal the normalised teacher's, and for an empty batch.
    """
    if student.numel() == 0:
        return student.sum()
    t = at_least_float32(teacher)
    return F.smooth_l1_loss(at_least_float32(student), F.layer_norm(t, t.shape[1:]))


class Isometry(nn.Module):
    """z [B, inputs] -> z P^T [B, outputs], P with orthonormal columns at every step: lengths and angles are preserved.

    With more inputs than outputs P has orthonormal rows instead: a rotation, of which some coordinates are kept. P is
    the Cayley map of a skew-symmetric matrix, times a fixed random P. It stays orthonormal under any optimiser step;
    `householder`, torch's default for non-square P, becomes P = 0 in the first step with weight decay. P and its
    product are computed in at least float32, because half precision would lose orthonormality.

    Args:
        inputs: width of z.
        outputs: width of the result.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear = orthogonal(nn.Linear(inputs, outputs, bias=False), orthogonal_map="cayley")

    def forward(self, z: Tensor) -> Tensor:
        """The rotated vectors, in the dtype of `z`, but at least float32."""
        with torch.autocast(z.device.type, enabled=False):
            return self.linear(at_least_float32(z))


class VkD(Method):
    """The student's pooled features, rotated, should equal the teacher's, normalised.

    Differs: the authors' distillation token learns the predictions in addition (KL at temperature 1); here that is a
    method of its own, `hinton` with temperature 1 and weight 1. For generative models they whiten the teacher instead
    of normalising it, which is not implemented. P is parametrised by the Cayley map, see `Isometry`. Several pairs of
    taps are averaged.

    Use: from any teacher to a ViT, or between ViTs: the projector can't solve the student's task by itself, and is
    discarded after training. The authors: DeiT-Ti 78.3, DeiT-S 82.3 on ImageNet.

    Avoid: where the student is much wider than the teacher: the part that P drops is not trained. With widths in the
    thousands on a CPU: each step solves a linear system of the larger of the two widths.

    Args:
        student_taps: features of the student, averaged over positions or patch tokens; if empty, the last.
        teacher_taps: features of the teacher; the i-th is compared with the student's i-th.
    """

    weight = 1.0
    default_taps = "last"

    def __init__(self, *, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.rotate = nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Build a rotation for each pair."""
        self.rotate = nn.ModuleList()
        for s, t in zip(self.student_taps, self.teacher_taps, strict=True):
            ours, theirs = to_vector(student.taps[s]), to_vector(teacher.taps[t])
            self.rotate.append(Isometry(ours.shape[1], theirs.shape[1]).to(ours.device))

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"features": ...}`, see `vkd_loss`."""
        losses = [
            vkd_loss(rotate(to_vector(student.taps[s])), to_vector(teacher.taps[t]))
            for rotate, s, t in zip(self.rotate, self.student_taps, self.teacher_taps, strict=True)
        ]
        return {"features": torch.stack(losses).mean()}

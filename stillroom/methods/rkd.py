"""Match distances and angles between images. Park et al. 2019, https://arxiv.org/abs/1904.05068, eqs. 4-9."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from stillroom.methods._checks import at_least
from stillroom.methods._relations import inner, relative_distances, unit, vectors
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32

BUDGET = 2**24
"""Numbers that the angles at one group of images may need: 64 MiB in float32. Bounds the memory of B^3 angles."""


def rkd_distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean_ij huber(d_ij / mean d, d'_ij / mean d'), d_ij = |s_i - s_j|, d' of the teacher; means are over d > 0.

    huber(x, y) is (x - y)^2 / 2 up to a difference of 1, and |x - y| - 1/2 beyond it.

    Args:
        student: [B, D].
        teacher: [B, D'], of the same images.

    Returns:
        Scalar, at least 0; 0 where the student's points are the teacher's moved, turned, mirrored or scaled, and for
        fewer than three images. Points that coincide give no gradient.
    """
    s, t = at_least_float32(student), at_least_float32(teacher)
    return F.smooth_l1_loss(relative_distances(s), relative_distances(t)) if len(s) else s.sum()


def rkd_angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean_ijk huber(cos a_ijk, cos a'_ijk), a_ijk = the angle at j between s_i - s_j and s_k - s_j; a' the teacher's.

    There are B^3 angles, and twice B^2 directions behind them. So they are taken for as many j at a time as `BUDGET`
    allows, and where that is not all, computed again in the backward pass instead of kept.

    Args:
        student: [B, D].
        teacher: [B, D'], of the same images.

    Returns:
        Scalar, 0..3/2; 0 as for `rkd_distance_loss`. A point has no direction from one it coincides with, and the
        cosine is then 0, as it is for i = j or k = j.
    """
    s, t = at_least_float32(student), at_least_float32(teacher)
    count = len(s)
    if count == 0:
        return s.sum()
    group = max(1, BUDGET // (count * max(count, s.shape[1], t.shape[1])))
    if group >= count:
        return _angles_apart(s, t, 0, count) / count**3
    parts = [
        checkpoint(_angles_apart, s, t, first, first + group, use_reentrant=False, preserve_rng_state=False)
        for first in range(0, count, group)
    ]
    return torch.stack(parts).sum() / count**3


def _angles_apart(student: Tensor, teacher: Tensor, first: int, last: int) -> Tensor:
    """Sum over first <= j < last."""
    return F.smooth_l1_loss(_cosines(student, first, last), _cosines(teacher, first, last), reduction="sum")


def _cosines(x: Tensor, first: int, last: int) -> Tensor:
    """[B, D] -> [last - first, B, B], at j the cosine between the directions to i and k."""
    directions = unit(x[None] - x[first:last, None])
    return inner(directions, directions)


class RKD(Method):
    """The geometry of a batch: how far apart its images are and under which angles, at any two widths.

    Differs: nothing known in the loss. The authors' code keeps all B^3 angles in memory; here they are taken in groups.

    Use: for retrieval and metric learning, where distances are the product, and for students of another width than
    the teacher. Batches of 64 and more: what is compared are the images of one step.

    Avoid: for plain classification with a good teacher. On CIFAR-100 (resnet32x4 to resnet8x4) Tian et al. 2020
    measured 71.90 with it and 72.50 without a teacher; `hinton` has 73.33.

    Args:
        distance: at least 0; what the distances count. The term is multiplied by it; at 0 it is left out.
        angle: at least 0; likewise the angles.
        student_taps: a feature of the student; found where both are left out.
        teacher_taps: the teacher's, for comparison with it.

    Raises:
        ValueError: a coefficient is below 0, or both are 0.
    """

    weight = 1.0
    reads = "vector"

    def __init__(
        self,
        *,
        distance: float = 25.0,
        angle: float = 50.0,
        student_taps: tuple[str, ...] = (),
        teacher_taps: tuple[str, ...] = (),
    ):
        super().__init__()
        at_least(0, distance=distance, angle=angle)
        if distance == angle == 0:
            raise ValueError("distance or angle must be above 0, got 0 for both")
        self.distance, self.angle = distance, angle
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"distance": ..., "angle": ...}`, each times its coefficient, summed over the taps."""
        pairs = list(vectors(self, student, teacher))
        terms: Terms = {}
        if self.distance:
            terms["distance"] = self.distance * torch.stack([rkd_distance_loss(s, t) for s, t in pairs]).sum()
        if self.angle:
            terms["angle"] = self.angle * torch.stack([rkd_angle_loss(s, t) for s, t in pairs]).sum()
        return terms

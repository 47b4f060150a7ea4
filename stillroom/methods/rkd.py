"""Match distances and angles between images. Park et al. 2019, https://arxiv.org/abs/1904.05068, eqs. 4-9."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from stillroom.methods._checks import at_least
from stillroom.methods._relations import inner, relative_distances, unit, vector_pairs
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32

BUDGET = 2**24
"""Most elements that the angles of one group of images may need: 64 MiB in float32. Bounds the memory of B^3 angles."""


def rkd_distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean_ij huber(d_ij / mean d, d'_ij / mean d'), d_ij = |s_i - s_j|, d' the teacher's; means of d > 0.

    huber(x, y) is (x - y)^2 / 2 up to a difference of 1, and |x - y| - 1/2 above it.

    Args:
        student: [B, D].
        teacher: [B, D'], of the same images.

    Returns:
        Scalar, at least 0; 0 where the student's points are the teacher's after translation, rotation, reflection and
        scaling, and for fewer than three images. Coinciding points have no gradient.
    """
    s, t = at_least_float32(student), at_least_float32(teacher)
    return F.smooth_l1_loss(relative_distances(s), relative_distances(t)) if len(s) else s.sum()


def rkd_angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean_ijk huber(cos a_ijk, cos a'_ijk), a_ijk the angle at j between s_i - s_j and s_k - s_j; a' the teacher's.

    There are B^3 angles, from B^2 directions. They are computed for as many j at a time as `BUDGET` allows; with more
    than one group they are recomputed in the backward pass instead of being stored.

    Args:
        student: [B, D].
        teacher: [B, D'], of the same images.

    Returns:
        Scalar in 0..3/2; 0 as for `rkd_distance_loss`. The cosine is 0 where two of the three points coincide, also for
        i = j or k = j.
    """
    s, t = at_least_float32(student), at_least_float32(teacher)
    count = len(s)
    if count == 0:
        return s.sum()
    group = max(1, BUDGET // (count * max(count, s.shape[1], t.shape[1])))
    if group >= count:
        return _angle_loss(s, t, 0, count) / count**3
    parts = [
        checkpoint(_angle_loss, s, t, first, first + group, use_reentrant=False, preserve_rng_state=False)
        for first in range(0, count, group)
    ]
    return torch.stack(parts).sum() / count**3


def _angle_loss(student: Tensor, teacher: Tensor, first: int, last: int) -> Tensor:
    """Sum over first <= j < last."""
    return F.smooth_l1_loss(_cosines(student, first, last), _cosines(teacher, first, last), reduction="sum")


def _cosines(x: Tensor, first: int, last: int) -> Tensor:
    """[B, D] -> [last - first, B, B], at j the cosine between the directions to i and k."""
    directions = unit(x[None] - x[first:last, None])
    return inner(directions, directions)


class RKD(Method):
    """The geometry of a batch: distances and angles between the vectors of its images, for any two widths.

    Differs: no known difference in the loss. The authors' code stores all B^3 angles; here they are computed in groups.

    Use: for retrieval and metric learning, where distances matter, and for students of another width than the teacher.
    With batches of at least 64 images, because only the images of one step are compared.

    Avoid: for plain classification with a good teacher. On CIFAR-100 (resnet32x4 to resnet8x4) Tian et al. 2020
    measured 71.90 with it, 72.50 without a teacher and 73.33 with `hinton`.

    Args:
        distance: at least 0; factor of the distance term, which is left out at 0.
        angle: at least 0; factor of the angle term, which is left out at 0.
        student_taps: a feature of the student; if empty, the input of its classifier.
        teacher_taps: the feature of the teacher that it is compared with.

    Raises:
        ValueError: a factor is below 0, or both are 0.
    """

    weight = 1.0
    default_taps = "vector"

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
        """`{"distance": ..., "angle": ...}`, each multiplied by its factor and summed over the taps."""
        pairs = list(vector_pairs(self, student, teacher))
        terms: Terms = {}
        if self.distance:
            terms["distance"] = self.distance * torch.stack([rkd_distance_loss(s, t) for s, t in pairs]).sum()
        if self.angle:
            terms["angle"] = self.angle * torch.stack([rkd_angle_loss(s, t) for s, t in pairs]).sum()
        return terms

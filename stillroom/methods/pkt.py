"""Match distributions over the images of a batch. Passalis, Tefas 2018, https://arxiv.org/abs/1803.10837, eqs. 3-6."""

from __future__ import annotations

import torch
from torch import Tensor

from stillroom.methods._relations import inner, unit, vector_pairs
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32

EPSILON = 1e-7
"""Added to all kernels, so that the logarithm exists for opposite vectors, whose kernel is 0."""


def pkt_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """sum_ij p_ij (log p_ij - log q_ij) / B^2, p_ij = K_ij / sum_j K_ij, K_ij = (1 + cos(t_i, t_j)) / 2.

    q is computed from the student's vectors, p from the teacher's.

    Args:
        student: [B, D].
        teacher: [B, D'], of the same images.

    Returns:
        Scalar in nats, at least 0; 0 for equal cosines, so under any rotation and any scaling of each vector, for one
        image, and for an empty batch. A zero vector has cosine 0 with all others, and no gradient.
    """
    if len(student) == 0:
        return at_least_float32(student).sum()
    q, p = _neighbours(at_least_float32(student)), _neighbours(at_least_float32(teacher))
    return (p * (p.log() - q.log())).mean()


def _neighbours(x: Tensor) -> Tensor:
    """[B, D] -> [B, B]: row i is a distribution over the batch, larger for images j that are similar to i."""
    direction = unit(x)
    kernel = (1 + inner(direction, direction)).clamp_min(0) / 2 + EPSILON  # rounding may give a cosine below -1
    return kernel / kernel.sum(1, keepdim=True)


class PKT(Method):
    """Probabilistic knowledge transfer: each image's distribution of similarity over the batch should be the teacher's.

    Differs: an image is included among its own neighbours, as in the authors' code, but not in their equations. Their
    code adds 1e-7 inside the logarithm, where it can make the loss negative; here it is added to the kernel (a
    difference of about 1e-4 of the loss at a batch of 64).

    Use: for retrieval, and for students of another width than the teacher. It has nothing to tune and no trainable
    modules.

    Avoid: with other batch sizes and the same weight: the mean is over B^2 entries of about 1 / B each. The weight of
    30000 is for batches of 64; it comes from later comparisons (Tian et al. 2020), as the paper uses this loss alone.

    Args:
        student_taps: a feature of the student; if empty, the input of its classifier.
        teacher_taps: the feature of the teacher that it is compared with.
    """

    weight = 30000.0
    default_taps = "vector"

    def __init__(self, *, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"kl": ...}`: `pkt_loss` summed over the taps."""
        return {"kl": torch.stack([pkt_loss(s, t) for s, t in vector_pairs(self, student, teacher)]).sum()}

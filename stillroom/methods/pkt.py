"""Match how a batch spreads around each image. Passalis, Tefas 2018, https://arxiv.org/abs/1803.10837, eqs. 3-6."""

from __future__ import annotations

import torch
from torch import Tensor

from stillroom.methods._relations import inner, unit, vectors
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32

EPSILON = 1e-7
"""Added to every kernel, so that opposite vectors, whose kernel is 0, have a logarithm."""


def pkt_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """sum_ij p_ij (log p_ij - log q_ij) / B^2, p_ij = K_ij / sum_j K_ij, K_ij = (1 + cos(t_i, t_j)) / 2.

    q is the student's, as p is the teacher's.

    Args:
        student: [B, D].
        teacher: [B, D'], of the same images.

    Returns:
        Scalar in nats, at least 0; 0 where the cosines agree, so for any rotation of the vectors and any scaling of
        each, and for one image. A zero vector has cosine 0 with all, and gives no gradient.
    """
    if len(student) == 0:
        return at_least_float32(student).sum()
    q, p = _neighbours(at_least_float32(student)), _neighbours(at_least_float32(teacher))
    return (p * (p.log() - q.log())).mean()


def _neighbours(x: Tensor) -> Tensor:
    """[B, D] -> [B, B]: row i is a distribution over the batch, more where j looks like i."""
    direction = unit(x)
    kernel = (1 + inner(direction, direction)).clamp_min(0) / 2 + EPSILON  # rounding may leave a cosine below -1
    return kernel / kernel.sum(1, keepdim=True)


class PKT(Method):
    """Probabilistic knowledge transfer: for each image, the share of likeness that every other of the batch has.

    Differs: an image counts among its own neighbours, as in the authors' code, though not in their equations. Their
    1e-7 stands inside the logarithm, where it can make the loss negative; here it is added to the kernel (apart by
    about 1e-4 of the loss at a batch of 64).

    Use: for retrieval and for students of another width than the teacher. It has nothing to tune and nothing to train.

    Avoid: with other batch sizes at the same weight: the mean is over B^2 entries of about 1 / B each. The weight of
    30000 is for batches of 64; it comes from later comparisons (Tian et al. 2020), as the paper trains with this alone.

    Args:
        student_taps: a feature of the student; found where both are left out.
        teacher_taps: the teacher's, for comparison with it.
    """

    weight = 30000.0
    reads = "vector"

    def __init__(self, *, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"kl": ...}`, see `pkt_loss`; summed over the taps."""
        return {"kl": torch.stack([pkt_loss(s, t) for s, t in vectors(self, student, teacher)]).sum()}

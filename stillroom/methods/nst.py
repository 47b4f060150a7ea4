"""Let neurons fire where the teacher's do. Huang, Wang 2017, https://arxiv.org/abs/1707.01219, section 4."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.methods._features import to_map
from stillroom.methods._maps import checked_map_pairs, map_pairs, to_smaller_grid
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms


def nst_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y) between the channels of both, averaged over images.

    A sample is one channel's map, flattened and of length 1: where this neuron fires. k is the polynomial kernel
    (x . y)^2, so what must agree is the mean of x x^T: how often two places fire together. The same number as
    `mmd(x, y, polynomial(2, 0), biased=True)` of `_mmd`, in less memory.

    Args:
        student: [B, C, h, w] or [B, N, C]; brought to the smaller of the two sizes.
        teacher: [B, D, H, W] or [B, M, D]; any width.

    Returns:
        Scalar, 0 to 2 but for rounding; 0 for the same set of channels, in any order, each of any positive or negative
        size; 0 for an empty batch.
    """
    s, t = to_smaller_grid(to_map(student), to_map(teacher))
    if s.numel() == 0:
        return s.sum()
    x, y = (F.normalize(f.flatten(2), dim=2) for f in (s, t))
    with torch.autocast(x.device.type, enabled=False):  # a difference of means: half precision would leave noise
        return (_mean_kernel(x, x) + _mean_kernel(y, y) - 2 * _mean_kernel(x, y)).mean()


def _mean_kernel(x: Tensor, y: Tensor) -> Tensor:
    """Mean over i, j of (x_i . y_j)^2, for [B, C, P] and [B, D, P]: [B].

    It is sum((X Y^T)^2) / C D = sum((X^T X) * (Y^T Y)) / C D. Products between places are taken where there are fewer
    places than channels, which is how it is late in a network.
    """
    channels = x.shape[1] * y.shape[1]
    if x.shape[2] ** 2 < channels:
        return ((x.mT @ x) * (y.mT @ y)).sum((1, 2)) / channels
    return (x @ y.mT).square().sum((1, 2)) / channels


class NST(Method):
    """Neuron selectivity transfer: the student's channels, as a set, fire at the same places as the teacher's.

    Differs: maps of different sizes are compared at the smaller size, and tokens are maps. Every stage is compared, as
    in code that people compare with; the paper takes the last. A channel is compared with itself too (the biased
    estimate), as by the authors.

    Use: convolutional networks of one family and different width: it learns nothing besides the student.

    Avoid: across families, without a run that has no teacher beside it: VGG13 to MobileNetV2 on CIFAR-100 came out at
    58.2 %, far below the 64.6 % of no teacher, ResNet32x4 to ShuffleNetV1 3.6 points above it (Tian et al. 2020).

    Args:
        student_taps: places in the student; () has the end of every stage found.
        teacher_taps: places in the teacher, as many.

    Raises:
        IncomparableFeatures: SR-M330, in `setup`, for a vector, which has no places.
    """

    weight = 50.0
    default_taps = "stages"

    def __init__(self, *, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)

    def setup(self, student: Output, teacher: Output) -> None:
        """Nothing to learn; refuse vectors."""
        checked_map_pairs(self, student, teacher, vectors=False)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"nst": ...}`: `nst_loss` summed over the stages."""
        return {"nst": torch.stack([nst_loss(s, t) for s, t in map_pairs(self, student, teacher)]).sum()}

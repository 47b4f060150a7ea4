"""Match the distribution of channel activations. Huang, Wang 2017, https://arxiv.org/abs/1707.01219, section 4."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.methods._features import to_map
from stillroom.methods._maps import checked_map_pairs, map_pairs, to_smaller_grid
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms


def nst_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y) between the channels of both networks, a mean over images.

    A sample is the map of one channel, flattened and normalised to length 1. k is the polynomial kernel (x . y)^2,
    which compares the mean of x x^T: how often two positions are active together. It equals `mmd(x, y, polynomial(2,
    0), biased=True)` of `_mmd`, with less memory.

    Args:
        student: [B, C, h, w] or [B, N, C]; resized to the smaller of the two sizes.
        teacher: [B, D, H, W] or [B, M, D]; any width.

    Returns:
        Scalar in 0..2, up to rounding; 0 for the same set of channels, in any order and with any scale or sign of each;
        0 for an empty batch.
    """
    s, t = to_smaller_grid(to_map(student), to_map(teacher))
    if s.numel() == 0:
        return s.sum()
    x, y = (F.normalize(f.flatten(2), dim=2) for f in (s, t))
    with torch.autocast(x.device.type, enabled=False):  # half precision is too coarse for a difference of means
        return (_mean_kernel(x, x) + _mean_kernel(y, y) - 2 * _mean_kernel(x, y)).mean()


def _mean_kernel(x: Tensor, y: Tensor) -> Tensor:
    """Mean over i, j of (x_i . y_j)^2, for [B, C, P] and [B, D, P]: [B].

    It equals sum((X Y^T)^2) / C D = sum((X^T X) * (Y^T Y)) / C D. The second form is cheaper where there are fewer
    positions than channels, as in late stages.
    """
    channels = x.shape[1] * y.shape[1]
    if x.shape[2] ** 2 < channels:
        return ((x.mT @ x) * (y.mT @ y)).sum((1, 2)) / channels
    return (x @ y.mT).square().sum((1, 2)) / channels


class NST(Method):
    """Neuron selectivity transfer: match where channels are active, as a set of maps.

    Differs: maps of different sizes are compared at the smaller size, and tokens are treated as maps. All stages are
    compared, as in widely used code; the paper uses the last. The biased estimate is used, as by the authors.

    Use: convolutional networks of one family and different width. It has no trainable modules.

    Avoid: across families, unless compared with a run without a teacher: VGG13 to MobileNetV2 on CIFAR-100 reached 58.2
    %, far below the 64.6 % without a teacher, ResNet32x4 to ShuffleNetV1 was 3.6 points above it (Tian et al. 2020).

    Args:
        student_taps: features of the student; if empty, the end of each stage.
        teacher_taps: features of the teacher, equally many.

    Raises:
        IncomparableFeatures: SR-M330, in `setup`, for a vector, which has no positions.
    """

    weight = 50.0
    default_taps = "stages"

    def __init__(self, *, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)

    def setup(self, student: Output, teacher: Output) -> None:
        """No trainable modules; vectors are refused."""
        checked_map_pairs(self, student, teacher, vectors=False)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"nst": ...}`: `nst_loss` summed over the stages."""
        return {"nst": torch.stack([nst_loss(s, t) for s, t in map_pairs(self, student, teacher)]).sum()}

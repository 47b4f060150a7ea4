"""Match maps, standardised by channel. Cao et al. 2022 (PKD), https://arxiv.org/abs/2207.02039, sec. 3."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stillroom.distributed.collectives import all_reduce_sum
from stillroom.methods._features import to_grid
from stillroom.methods._maps import checked_map_pairs, map_pairs
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32

EPSILON = 1e-6


def standardised(feature: Tensor) -> Tensor:
    """(x - mean) / (deviation + 1e-6), of each channel over the images and positions of all processes: [B, C, h, w].

    A constant channel becomes 0, without a gradient.
    """
    x = at_least_float32(feature)
    count = all_reduce_sum(x.new_tensor(float(x.shape[0] * x.shape[2] * x.shape[3]))).clamp_min(1)
    centred = x - all_reduce_sum(x.sum((0, 2, 3), keepdim=True)) / count
    variance = all_reduce_sum(centred.square().sum((0, 2, 3), keepdim=True)) / count
    # The derivative of the square root is infinite at 0.
    return centred / (variance.clamp_min(EPSILON**2).sqrt() + EPSILON)


def pkd_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean((standardised(student) - standardised(teacher))^2) / 2: the mean of 1 - Pearson's correlation.

    Args:
        student: [B, C, h, w].
        teacher: the same shape.

    Returns:
        Scalar in 0..2: 0 where each channel is a x + b, a > 0, of the teacher's channel x; 1 for uncorrelated channels;
        0 for an empty batch.
    """
    if student.numel() == 0:
        return student.sum()
    return (standardised(student) - standardised(teacher)).square().mean() / 2


class PKD(Method):
    """Pearson's correlation of maps: the student matches where a channel is strong, but not the scale of the channels.

    Differs: the authors compare feature pyramids of one width; here a 1x1 convolution is used where widths differ. The
    variance is divided by the count, theirs by the count minus one. A student's map of another size is resized. With
    several processes the statistics are those of all images.

    Use: between detectors of different kinds, whose features differ in scale, so that an unweighted regression is
    dominated by the channels with the largest values. It has nothing to tune; the weight is that of the authors'
    configurations.

    Avoid: with very few images per step and small maps, because the statistics are those of the batch.

    Args:
        student_taps: maps of the student; if empty, the ends of its stages.
        teacher_taps: maps of the teacher; the i-th is compared with the student's i-th, and the losses are summed.

    Raises:
        IncomparableFeatures: SR-M330, in `setup`, where a vector would be compared with a map.
    """

    weight = 6.0
    default_taps = "stages"

    def __init__(self, *, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.align = nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Build a convolution for each pair of different widths."""
        found = [(s.shape[1], t.shape[1], s.device) for s, t in checked_map_pairs(self, student, teacher)]
        self.align = nn.ModuleList((nn.Conv2d(c, d, 1) if c != d else nn.Identity()).to(at) for c, d, at in found)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"correlation": ...}`: `pkd_loss` summed over the taps."""
        named = zip(map_pairs(self, student, teacher), self.align, strict=True)
        return {"correlation": torch.stack([pkd_loss(to_grid(align(s), t), t) for (s, t), align in named]).sum()}

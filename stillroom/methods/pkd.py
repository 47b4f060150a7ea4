"""Match maps up to each channel's mean and scale. Cao et al. 2022 (PKD), https://arxiv.org/abs/2207.02039, sec. 3."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stillroom.distributed.collectives import all_reduce_sum
from stillroom.methods._features import to_grid
from stillroom.methods._maps import comparable, pairs
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32

EPSILON = 1e-6


def standardised(feature: Tensor) -> Tensor:
    """(x - mean) / (deviation + 1e-6), both of a channel over the images and places of all processes: [B, C, h, w].

    A channel that is the same everywhere becomes 0, and gets no gradient.
    """
    x = at_least_float32(feature)
    count = all_reduce_sum(x.new_tensor(float(x.shape[0] * x.shape[2] * x.shape[3]))).clamp_min(1)
    centred = x - all_reduce_sum(x.sum((0, 2, 3), keepdim=True)) / count
    variance = all_reduce_sum(centred.square().sum((0, 2, 3), keepdim=True)) / count
    # The root's slope is without bound at 0.
    return centred / (variance.clamp_min(EPSILON**2).sqrt() + EPSILON)


def pkd_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean((standardised(student) - standardised(teacher))^2) / 2: one minus Pearson's correlation, over channels.

    Args:
        student: [B, C, h, w].
        teacher: the same shape.

    Returns:
        Scalar in 0..2: 0 where every channel of one is the other's, shifted and scaled by a positive number; 1 where
        they have nothing to do with each other. An empty batch costs 0.
    """
    if student.numel() == 0:
        return student.sum()
    return (standardised(student) - standardised(teacher)).square().mean() / 2


class PKD(Method):
    """Pearson's correlation of maps: the student imitates where a channel is strong, not how strong its channels are.

    Differs: the authors compare pyramids of one width; where widths differ a 1x1 convolution stands between. The
    variance divides by the count, theirs by the count less one. A student's map of another size is resized. In several
    processes the statistics are those of all images.

    Use: between detectors of different kinds: features of unlike scale, where a plain regression is ruled by the
    channels with the largest numbers. It has nothing to tune; the weight is that of the authors' configurations.

    Avoid: with very few images a step and small maps: the statistics are the batch's.

    Args:
        student_taps: maps of the student; () has the ends of its stages found.
        teacher_taps: the teacher's, the i-th compared with the i-th; the losses are summed.

    Raises:
        IncomparableFeatures: SR-M330, in `setup`, where a vector meets a map.
    """

    weight = 6.0
    reads = "stages"

    def __init__(self, *, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.align = nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Align widths where they differ."""
        found = [(s.shape[1], t.shape[1], s.device) for s, t in comparable(self, student, teacher)]
        self.align = nn.ModuleList((nn.Conv2d(c, d, 1) if c != d else nn.Identity()).to(at) for c, d, at in found)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"correlation": ...}`, see `pkd_loss`."""
        named = zip(pairs(self, student, teacher), self.align, strict=True)
        return {"correlation": torch.stack([pkd_loss(to_grid(align(s), t), t) for (s, t), align in named]).sum()}

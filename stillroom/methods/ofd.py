"""Regress stages before their activation. Heo et al. 2019 (OFD), https://arxiv.org/abs/1904.01866, section 3."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stillroom.distributed.collectives import all_reduce_sum
from stillroom.methods._features import to_map
from stillroom.methods._maps import BatchNorm, checked_map_pairs, map_pairs, to_smaller_grid
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms


def negatives(teacher: Tensor) -> Tensor:
    """[2, C]: the sum and the number of the negative values of each channel. Those of several batches can be added.

    Args:
        teacher: [B, C, h, w].
    """
    t = to_map(teacher)
    return torch.stack([t.clamp(max=0).sum((0, 2, 3)), (t < 0).to(t.dtype).sum((0, 2, 3))])


def margin(below: Tensor) -> Tensor:
    """Mean of the negative values of each channel, E[x | x < 0]: [C], at most 0. 0 if there are none.

    Args:
        below: from `negatives`.
    """
    return below[0] / below[1].clamp(min=1)


def ofd_loss(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """sum((student - m)^2, except where student <= m <= 0) / B, with m = max(teacher, margin) elementwise.

    A negative value becomes 0 in the activation that follows, whatever its size. So the teacher's negative values are
    raised to the channel's margin (margin ReLU), and a student below a negative target has no loss (partial L2).

    Args:
        student: [B, C, h, w] before the activation, with the teacher's width.
        teacher: the same shape, before the activation.
        margin: [C], at most 0.

    Returns:
        Scalar, at least 0; 0 for equal maps, and for an empty batch. It grows with the map, of C h w elements.
    """
    s, t = to_map(student), to_map(teacher)
    if len(s) == 0:
        return s.sum()
    goal = torch.maximum(t, margin.view(1, -1, 1, 1))
    satisfied = (s <= goal) & (goal <= 0)
    return (s - goal).square().masked_fill(satisfied, 0).sum() / len(s)


class OFD(Method):
    """Overhaul of feature distillation: stages before their activation, margin ReLU, partial L2.

    Differs: the authors compute the margin from the teacher's batch norm parameters, assuming a normal distribution;
    here it is the mean of the negative values in the current batch, over all processes, which works for any network.
    Maps of different sizes are compared at the smaller size, and tokens are treated as maps.

    Use: convolutional networks with ReLU, of one family, where every stage has a counterpart.

    Avoid: teachers whose features are not followed by a ReLU, such as ViTs: there negative values carry information,
    which the margin removes.

    Args:
        student_taps: features of the student; if empty, the end of each stage, before its activation.
        teacher_taps: features of the teacher, equally many.

    Raises:
        IncomparableFeatures: SR-M330, in `setup`, where a vector would be compared with a map.
    """

    weight = 1e-3
    default_taps = "edges"

    def __init__(self, *, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.adapt = nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Build the connectors."""
        found = checked_map_pairs(self, student, teacher)
        self.adapt = nn.ModuleList(_connector(s.shape[1], t.shape[1]).to(s.device) for s, t in found)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"ofd": ...}`: `ofd_loss` summed over the n stages, that of the i-th divided by 2^(n - i)."""
        losses = []
        for (s, t), adapt in zip(map_pairs(self, student, teacher), self.adapt, strict=True):
            s, t = to_smaller_grid(adapt(s), t)
            losses.append(ofd_loss(s, t, margin(all_reduce_sum(negatives(t)))))
        return {"ofd": torch.stack([loss / 2**i for i, loss in enumerate(reversed(losses))]).sum()}


def _connector(narrow: int, wide: int) -> nn.Module:
    """As the authors': a 1x1 convolution without bias, and batch norm."""
    conv = nn.Conv2d(narrow, wide, 1, bias=False)
    nn.init.normal_(conv.weight, std=math.sqrt(2 / wide))
    return nn.Sequential(conv, BatchNorm(wide))

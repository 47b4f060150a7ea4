"""Imitate what a stage says before its activation. Heo et al. 2019, https://arxiv.org/abs/1904.01866, section 3."""

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
    """[2, C]: the sum of each channel's negative responses, and how many there are. Sums of batches can be added.

    Args:
        teacher: [B, C, h, w].
    """
    t = to_map(teacher)
    return torch.stack([t.clamp(max=0).sum((0, 2, 3)), (t < 0).to(t.dtype).sum((0, 2, 3))])


def margin(below: Tensor) -> Tensor:
    """The mean negative response of each channel, E[x | x < 0]: [C], none above 0. 0 where a channel has none.

    Args:
        below: from `negatives`.
    """
    return below[0] / below[1].clamp(min=1)


def ofd_loss(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """sum((student - m)^2 but where student <= m <= 0) / B, with m = max(teacher, margin) of each element.

    What matters of a negative response is that it is negative, an activation follows: the teacher's are raised to the
    channel's margin (margin ReLU), and a student that lies below a negative target is charged nothing (partial L2).

    Args:
        student: [B, C, h, w] before the activation, as wide as the teacher.
        teacher: the same shape, before the activation.
        margin: [C], none above 0.

    Returns:
        Scalar, at least 0; 0 for equal maps, and for an empty batch. It grows with the map: C h w elements.
    """
    s, t = to_map(student), to_map(teacher)
    if len(s) == 0:
        return s.sum()
    wanted = torch.maximum(t, margin.view(1, -1, 1, 1))
    enough = (s <= wanted) & (wanted <= 0)
    return (s - wanted).square().masked_fill(enough, 0).sum() / len(s)


class OFD(Method):
    """The overhaul of feature distillation: stages before their activation, margin ReLU, partial L2.

    Differs: the authors reckon the margin from the weights of the teacher's batch norms, taking responses for normally
    distributed; here it is the mean of the negative responses in the batch at hand, over all processes, which any
    network has. Maps of different sizes are compared at the smaller size, and tokens are maps.

    Use: convolutional networks with ReLU, of one family, where every stage has a partner.

    Avoid: teachers whose features do not end in ReLU, such as ViTs: what is negative is told there as well, and is
    lost to the margin.

    Args:
        student_taps: places in the student; () has the end of every stage found, before its activation.
        teacher_taps: places in the teacher, as many.

    Raises:
        IncomparableFeatures: SR-M330, in `setup`, where a vector meets a map.
    """

    weight = 1e-3
    default_taps = "edges"

    def __init__(self, *, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.adapt = nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Size the connectors."""
        found = checked_map_pairs(self, student, teacher)
        self.adapt = nn.ModuleList(_connector(s.shape[1], t.shape[1]).to(s.device) for s, t in found)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"ofd": ...}`: `ofd_loss` summed over the n stages, the i-th divided by 2^(n - i)."""
        found = []
        for (s, t), adapt in zip(map_pairs(self, student, teacher), self.adapt, strict=True):
            s, t = to_smaller_grid(adapt(s), t)
            found.append(ofd_loss(s, t, margin(all_reduce_sum(negatives(t)))))
        return {"ofd": torch.stack([charge / 2**i for i, charge in enumerate(reversed(found))]).sum()}


def _connector(narrow: int, wide: int) -> nn.Module:
    """The authors': a 1x1 convolution without bias, and batch norm."""
    conv = nn.Conv2d(narrow, wide, 1, bias=False)
    nn.init.normal_(conv.weight, std=math.sqrt(2 / wide))
    return nn.Sequential(conv, BatchNorm(wide))

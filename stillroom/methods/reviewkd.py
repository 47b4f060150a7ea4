"""Teach early stages with the help of late ones. Chen et al. 2021, https://arxiv.org/abs/2104.09044, section 3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.methods._features import to_map
from stillroom.methods._maps import Norm, comparable, pairs
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms

PYRAMID = (4, 2, 1)  # the sides at which two maps are compared besides their own
WIDEST = 512  # channels that are handed from stage to stage


def hcl_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """sum_l w_l mean((pool_l(student) - pool_l(teacher))^2) / sum_l w_l: hierarchical context loss.

    l runs over the maps themselves and their averages over a grid of 4x4, 2x2 and 1x1, as far as those are smaller;
    w = 1, 1/2, 1/4, 1/8 in this order.

    Args:
        student: [B, C, h, w], [B, N, C] or [B, C].
        teacher: the same shape.

    Returns:
        Scalar, at least 0; 0 when the features are equal, and for an empty batch.
    """
    gap = to_map(student) - to_map(teacher)  # pooling is linear
    if gap.numel() == 0:
        return gap.sum()
    coarser = [F.adaptive_avg_pool2d(gap, side) for side in PYRAMID if side < min(gap.shape[2:])]
    weights = [0.5**i for i in range(1 + len(coarser))]
    charges = [w * level.square().mean() for w, level in zip(weights, [gap, *coarser], strict=True)]
    return torch.stack(charges).sum() / sum(weights)


class Fusion(nn.Module):
    """Attention based fusion (ABF): a stage's map mixed, place by place, with what came from the deeper stages.

        x = norm(conv1(map));  a, b = sigmoid(conv([x, y]));  m = a x + b y;  norm(conv3(m)) is compared, m handed on

    Args:
        width: channels of the stage.
        middle: channels of what is handed on.
        out: channels of the teacher's stage.
        deepest: whether nothing comes from below.
    """

    def __init__(self, width: int, middle: int, out: int, *, deepest: bool):
        super().__init__()
        self.enter = _conv_norm(width, middle, 1)
        self.leave = _conv_norm(middle, out, 3)
        self.share = None if deepest else nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid())

    def forward(self, x: Tensor, deeper: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """The map to compare, [B, out, H, W] with the size of `like`, and the one to hand on, [B, middle, H, W]."""
        x = self.enter(x)
        if self.share is not None and deeper is not None:
            deeper = _sized(deeper, x)
            shares = self.share(torch.cat([x, deeper], 1))
            x = x * shares[:, :1] + deeper * shares[:, 1:]
        x = _sized(x, like)
        return self.leave(x), x


class ReviewKD(Method):
    """Knowledge review: each teacher stage teaches the student's stage together with all deeper ones.

    Differs: the stages' ends are compared on both sides; the authors take the teacher's before the last activation, and
    on small images add the pooled vector as a last stage. Name taps to do so. Tokens are maps here.

    Use: dense tasks, and networks with stages of falling size. Give it `warmup_fraction = 0.08` in the recipe: the
    authors let its weight climb over the first 20 of 240 epochs. They use weights up to 8, by the pair of networks.

    Avoid: where the deepest stages of the two networks do not speak of the same: it is they that guide the early ones.

    Args:
        student_taps: places in the student, shallow to deep; () has the end of every stage found.
        teacher_taps: places in the teacher, as many.

    Raises:
        IncomparableFeatures: SR-M330, in `setup`, where a vector meets a map.
    """

    weight = 1.0
    reads = "stages"

    def __init__(self, *, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.fuse = nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Size the fusions, one a stage, shallow to deep."""
        found = comparable(self, student, teacher)
        middle, last = min(WIDEST, found[-1][0].shape[1]), len(found) - 1
        self.fuse = nn.ModuleList(
            Fusion(s.shape[1], middle, t.shape[1], deepest=i == last).to(s.device) for i, (s, t) in enumerate(found)
        )

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"hcl": ...}`: `hcl_loss` summed over the stages, which are fused from deep to shallow."""
        charges, deeper = [], None
        for (s, t), fuse in reversed(list(zip(pairs(self, student, teacher), self.fuse, strict=True))):
            fused, deeper = fuse(s, deeper, t)
            charges.append(hcl_loss(fused, t))
        return {"hcl": torch.stack(charges).sum()}


def _conv_norm(narrow: int, wide: int, side: int) -> nn.Module:
    conv = nn.Conv2d(narrow, wide, side, padding=side // 2, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, Norm(wide))


def _sized(x: Tensor, like: Tensor) -> Tensor:
    """`x` with the height and width of `like`, by the nearest place."""
    size = (like.shape[2], like.shape[3])
    return x if x.shape[2:] == like.shape[2:] else F.interpolate(x, size, mode="nearest")

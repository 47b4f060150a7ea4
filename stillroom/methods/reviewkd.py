"""Fuse stages with deeper ones before regression. Chen et al. 2021, https://arxiv.org/abs/2104.09044, section 3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.methods._features import to_map
from stillroom.methods._maps import BatchNorm, checked_map_pairs, map_pairs
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms

PYRAMID = (4, 2, 1)  # sizes at which two maps are compared in addition to their own
MAX_WIDTH = 512  # channels of the maps that are passed from stage to stage


def hcl_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """sum_l w_l mean((pool_l(student) - pool_l(teacher))^2) / sum_l w_l: hierarchical context loss.

    l runs over the maps themselves and their average-pooled versions of size 4x4, 2x2 and 1x1, as far as these are
    smaller; w = 1, 1/2, 1/4, 1/8 in this order.

    Args:
        student: [B, C, h, w], [B, N, C] or [B, C].
        teacher: the same shape.

    Returns:
        Scalar, at least 0; 0 for equal features, and for an empty batch.
    """
    error = to_map(student) - to_map(teacher)  # pooling is linear, so the difference can be pooled
    if error.numel() == 0:
        return error.sum()
    pooled = [F.adaptive_avg_pool2d(error, side) for side in PYRAMID if side < min(error.shape[2:])]
    weights = [0.5**i for i in range(1 + len(pooled))]
    losses = [w * level.square().mean() for w, level in zip(weights, [error, *pooled], strict=True)]
    return torch.stack(losses).sum() / sum(weights)


class Fusion(nn.Module):
    """Attention based fusion (ABF): a stage's map, mixed by position with the result of the deeper stages.

        x = norm(conv1(map));  a, b = sigmoid(conv([x, y]));  m = a x + b y;  norm(conv3(m)) is compared, m is passed on

    Args:
        width: channels of the stage.
        middle: channels of the maps that are passed on.
        out: channels of the teacher's stage.
        deepest: whether there is no deeper stage.
    """

    def __init__(self, width: int, middle: int, out: int, *, deepest: bool):
        super().__init__()
        self.enter = _conv_norm(width, middle, 1)
        self.leave = _conv_norm(middle, out, 3)
        self.share = None if deepest else nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid())

    def forward(self, x: Tensor, deeper: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """The map to compare, [B, out, H, W] with the size of `like`, and the one to pass on, [B, middle, H, W]."""
        x = self.enter(x)
        if self.share is not None and deeper is not None:
            deeper = _sized(deeper, x)
            shares = self.share(torch.cat([x, deeper], 1))
            x = x * shares[:, :1] + deeper * shares[:, 1:]
        x = _sized(x, like)
        return self.leave(x), x


class ReviewKD(Method):
    """Knowledge review: each stage of the teacher is compared with the student's stage, fused with all deeper ones.

    Differs: the ends of the stages are compared on both sides; the authors use the teacher's before the last
    activation, and for small images the pooled vector as an additional last stage. Name taps to do so. Tokens are
    treated as maps.

    Use: dense tasks, and networks whose stages decrease in size. Set `warmup_fraction = 0.08` in the recipe: the
    authors raise the weight over the first 20 of 240 epochs. Their weights are up to 8, depending on the pair of
    networks.

    Avoid: where the deepest stages of the two networks are not comparable, because they are fused into all others.

    Args:
        student_taps: features of the student, from shallow to deep; if empty, the end of each stage.
        teacher_taps: features of the teacher, equally many.

    Raises:
        IncomparableFeatures: SR-M330, in `setup`, where a vector would be compared with a map.
    """

    weight = 1.0
    default_taps = "stages"

    def __init__(self, *, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.fuse = nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Build a fusion for each stage, from shallow to deep."""
        found = checked_map_pairs(self, student, teacher)
        middle, last = min(MAX_WIDTH, found[-1][0].shape[1]), len(found) - 1
        self.fuse = nn.ModuleList(
            Fusion(s.shape[1], middle, t.shape[1], deepest=i == last).to(s.device) for i, (s, t) in enumerate(found)
        )

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"hcl": ...}`: `hcl_loss` summed over the stages, which are fused from deep to shallow."""
        losses, deeper = [], None
        for (s, t), fuse in reversed(list(zip(map_pairs(self, student, teacher), self.fuse, strict=True))):
            fused, deeper = fuse(s, deeper, t)
            losses.append(hcl_loss(fused, t))
        return {"hcl": torch.stack(losses).sum()}


def _conv_norm(narrow: int, wide: int, side: int) -> nn.Module:
    conv = nn.Conv2d(narrow, wide, side, padding=side // 2, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, BatchNorm(wide))


def _sized(x: Tensor, like: Tensor) -> Tensor:
    """`x` with the height and width of `like`, by nearest-neighbour interpolation."""
    size = (like.shape[2], like.shape[3])
    return x if x.shape[2:] == like.shape[2:] else F.interpolate(x, size, mode="nearest")

"""Make the teacher's map from a student's with holes. Yang et al. 2022, https://arxiv.org/abs/2205.01529, section 3."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from stillroom.methods._features import to_grid, to_map
from stillroom.methods._maps import checked_map_pairs, map_pairs
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms

Over = Literal["channels", "places"]


def random_mask(feature: Tensor, masked: float, over: Over) -> Tensor:
    """1 for what stays and 0 for what is masked: independent draws, each 0 with probability `masked`.

    Args:
        feature: [B, C, h, w].
        masked: in 0 .. 1.
        over: what is drawn for: every image's "channels" or its "places".

    Returns:
        [B, C, 1, 1] or [B, 1, h, w], for multiplying. What stays is not enlarged, unlike in dropout.
    """
    b, c, h, w = feature.shape
    shape = (b, c, 1, 1) if over == "channels" else (b, 1, h, w)
    return (torch.rand(shape, device=feature.device) >= masked).to(feature.dtype)


def mgd_loss(generated: Tensor, teacher: Tensor) -> Tensor:
    """sum((generated - teacher)^2) / B: over channels and places a sum, over images a mean.

    Args:
        generated: [B, C, h, w], what was made from the student's masked map.
        teacher: the same shape.

    Returns:
        Scalar, at least 0; 0 when the maps are equal, and for an empty batch. It grows with the map: C h w elements.
    """
    g, t = to_map(generated), to_map(teacher)
    return g.sum() if len(g) == 0 else (g - t).square().sum() / len(g)


class MGD(Method):
    """Masked generative distillation: from a student's map with holes two convolutions make the teacher's whole one.

    Differs: a student's map of another size is resized; the authors have equal sizes. Tokens are maps here. Several
    pairs of taps are summed.

    Use: dense tasks, and classification beside a logit method. For detection and segmentation the authors mask places:
    over = "places", masked 0.65 or 0.75, weight 2e-5.

    Avoid: very wide teachers on little memory: the generator has 18 D^2 weights, for a teacher D wide.

    Args:
        masked: share that is masked, at least 0 and below 1.
        over: mask "channels" or "places".
        student_taps: places in the student; () has its last map found.
        teacher_taps: places in the teacher, as many.

    Raises:
        ValueError: `masked` is not at least 0 and below 1, or `over` is another word.
        IncomparableFeatures: SR-M330, in `setup`, where a vector meets a map.
    """

    weight = 7e-5
    default_taps = "last"

    def __init__(
        self,
        *,
        masked: float = 0.15,
        over: Over = "channels",
        student_taps: tuple[str, ...] = (),
        teacher_taps: tuple[str, ...] = (),
    ):
        super().__init__()
        if not 0 <= masked < 1:
            raise ValueError(f"masked must be at least 0 and below 1, got {masked}")
        if over not in ("channels", "places"):
            raise ValueError(f"over must be 'channels' or 'places', got {over!r}")
        self.masked, self.over = masked, over
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.align, self.generate = nn.ModuleList(), nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Size the generators; align widths where they differ."""
        found = [(s.shape[1], t.shape[1], s.device) for s, t in checked_map_pairs(self, student, teacher)]
        self.align = nn.ModuleList((nn.Conv2d(c, d, 1) if c != d else nn.Identity()).to(at) for c, d, at in found)
        self.generate = nn.ModuleList(_generator(d).to(at) for _, d, at in found)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"mgd": ...}`, see `mgd_loss`."""
        found = []
        for (s, t), align, generate in zip(map_pairs(self, student, teacher), self.align, self.generate, strict=True):
            seen = to_grid(align(s), t)
            found.append(mgd_loss(generate(seen * random_mask(seen, self.masked, self.over)), t))
        return {"mgd": torch.stack(found).sum()}


def _generator(width: int) -> nn.Module:
    """3x3 convolution, ReLU, 3x3 convolution."""
    first, second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
    return nn.Sequential(first, nn.ReLU(), second)

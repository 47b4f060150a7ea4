"""Generate the teacher's map from a masked one. Yang et al. 2022, https://arxiv.org/abs/2205.01529, section 3."""

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
    """1 for entries that are kept, 0 for masked ones: independent draws, each 0 with probability `masked`.

    Args:
        feature: [B, C, h, w].
        masked: in 0..1.
        over: what is masked in each image: "channels" or "places" (positions).

    Returns:
        [B, C, 1, 1] or [B, 1, h, w], a factor of the feature. Unlike dropout, kept entries are not scaled.
    """
    b, c, h, w = feature.shape
    shape = (b, c, 1, 1) if over == "channels" else (b, 1, h, w)
    return (torch.rand(shape, device=feature.device) >= masked).to(feature.dtype)


def mgd_loss(generated: Tensor, teacher: Tensor) -> Tensor:
    """sum((generated - teacher)^2) / B: a sum over channels and positions, a mean over images.

    Args:
        generated: [B, C, h, w], generated from the student's masked map.
        teacher: the same shape.

    Returns:
        Scalar, at least 0; 0 for equal maps, and for an empty batch. It grows with the map, of C h w elements.
    """
    g, t = to_map(generated), to_map(teacher)
    return g.sum() if len(g) == 0 else (g - t).square().sum() / len(g)


class MGD(Method):
    """Masked generative distillation: two convolutions generate the teacher's map from a masked map of the student.

    Differs: a student's map of another size is resized; the authors have equal sizes. Tokens are treated as maps.
    Several pairs of taps are summed.

    Use: dense tasks, and classification together with a logit method. For detection and segmentation the authors mask
    positions: over = "places", masked 0.65 or 0.75, weight 2e-5.

    Avoid: very wide teachers with little memory: the generator has 18 D^2 weights, for a teacher of width D.

    Args:
        masked: masked share, at least 0 and below 1.
        over: mask "channels" or "places" (positions).
        student_taps: features of the student; if empty, its last map.
        teacher_taps: features of the teacher, equally many.

    Raises:
        ValueError: `masked` is not at least 0 and below 1, or `over` is neither.
        IncomparableFeatures: SR-M330, in `setup`, where a vector would be compared with a map.
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
        """Build the generators, and a convolution for each pair of different widths."""
        found = [(s.shape[1], t.shape[1], s.device) for s, t in checked_map_pairs(self, student, teacher)]
        self.align = nn.ModuleList((nn.Conv2d(c, d, 1) if c != d else nn.Identity()).to(at) for c, d, at in found)
        self.generate = nn.ModuleList(_generator(d).to(at) for _, d, at in found)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"mgd": ...}`, see `mgd_loss`."""
        losses = []
        for (s, t), align, generate in zip(map_pairs(self, student, teacher), self.align, self.generate, strict=True):
            s = to_grid(align(s), t)
            losses.append(mgd_loss(generate(s * random_mask(s, self.masked, self.over)), t))
        return {"mgd": torch.stack(losses).sum()}


def _generator(width: int) -> nn.Module:
    """3x3 convolution, ReLU, 3x3 convolution."""
    first, second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
    return nn.Sequential(first, nn.ReLU(), second)

"""Predict the teacher's features, with variances. Ahn et al. 2019, https://arxiv.org/abs/1904.05835, section 2."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.methods._features import to_map
from stillroom.methods._maps import checked_map_pairs, map_pairs, to_smaller_grid
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms

MIN_VARIANCE = 1e-5  # the authors'


def vid_loss(guess: Tensor, teacher: Tensor, variance: Tensor) -> Tensor:
    """mean(1/2 ((teacher - guess)^2 / variance + log variance)): a Gaussian's -log likelihood, minus a constant.

    It is an upper bound of the conditional entropy of the teacher's feature given the student's.

    Args:
        guess: the mean of the Gaussian, [B, C, h, w], [B, N, C] or [B, C], computed from the student.
        teacher: the same shape.
        variance: [C], above 0.

    Returns:
        Scalar in nats per element, NEGATIVE for a good prediction and a variance below 1. The minimum for a given
        variance is mean(log variance) / 2, where guess and teacher are equal. 0 for an empty batch. log(2 pi) / 2 is
        left out, as by the authors.
    """
    m, t, v = to_map(guess), to_map(teacher), variance.view(1, -1, 1, 1)
    return m.sum() if m.numel() == 0 else 0.5 * ((t - m).square() / v + v.log()).mean()


class VID(Method):
    """Variational information distillation: predict the teacher's channels, with a learned variance each.

    Differs: maps of different sizes are compared at the smaller size, and tokens are treated as maps; the paper has
    equal sizes. The variances are trained, as in the paper; a widely used reimplementation leaves them out of the
    optimiser.

    Use: features of which not all matter: a channel that can't be predicted gets a large variance, and a small weight.
    The loss may be negative and has no lower bound, so it can only be compared with itself.

    Avoid: where softened probabilities suffice: on CIFAR-100 they were better in all 13 pairs of networks that Tian et
    al. 2020 compare. And as the only method: it trains three convolutions for each stage.

    Args:
        variance: above 1e-5; the initial variance.
        student_taps: features of the student; if empty, the end of each stage.
        teacher_taps: features of the teacher, equally many.

    Raises:
        ValueError: the variance is not above 1e-5.
        IncomparableFeatures: SR-M330, in `setup`, where a vector would be compared with a map.
    """

    weight = 1.0
    default_taps = "stages"

    def __init__(
        self, *, variance: float = 5.0, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()
    ):
        super().__init__()
        if not MIN_VARIANCE < variance < math.inf:
            raise ValueError(f"variance must be above {MIN_VARIANCE}, got {variance}")
        self.variance = variance
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.guess, self.doubt = nn.ModuleList(), nn.ParameterList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Build the regressors, and set all variances to the initial one."""
        found = checked_map_pairs(self, student, teacher)
        self.guess = nn.ModuleList(_regressor(s.shape[1], t.shape[1]).to(s.device) for s, t in found)
        above = self.variance - MIN_VARIANCE
        begin = above + math.log(-math.expm1(-above))  # softplus(begin) = above
        self.doubt = nn.ParameterList(torch.full((t.shape[1],), begin, device=t.device) for _, t in found)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"vid": ...}`: `vid_loss` summed over the stages."""
        losses = []
        for (s, t), guess, doubt in zip(map_pairs(self, student, teacher), self.guess, self.doubt, strict=True):
            s, t = to_smaller_grid(s, t)
            losses.append(vid_loss(guess(s), t, F.softplus(doubt) + MIN_VARIANCE))
        return {"vid": torch.stack(losses).sum()}


def _regressor(narrow: int, wide: int) -> nn.Module:
    """As the authors': three 1x1 convolutions without bias, with ReLU between them."""
    sizes = ((narrow, wide), (wide, wide), (wide, wide))
    first, second, third = (nn.Conv2d(c, d, 1, bias=False) for c, d in sizes)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)

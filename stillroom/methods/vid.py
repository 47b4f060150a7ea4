"""Keep what is known of the teacher's features high. Ahn et al. 2019, https://arxiv.org/abs/1904.05835, section 2."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.methods._features import to_map
from stillroom.methods._maps import checked_map_pairs, map_pairs, to_smaller_grid
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms

LEAST = 1e-5  # a variance, the authors'


def vid_loss(guess: Tensor, teacher: Tensor, variance: Tensor) -> Tensor:
    """mean(1/2 ((teacher - guess)^2 / variance + log variance)): -log of a Gaussian, less its constant.

    The lower it can be made, the more the student's feature tells about the teacher's: it bounds from above what
    remains unknown.

    Args:
        guess: the mean of the Gaussian, [B, C, h, w], [B, N, C] or [B, C], made from the student.
        teacher: the same shape.
        variance: [C], above 0.

    Returns:
        Scalar in nats an element, NEGATIVE where the guess is good and the variance below 1. For a given variance the
        least is mean(log variance) / 2, where guess and teacher agree. An empty batch costs 0. log(2 pi) / 2 is left
        out, as by the authors.
    """
    m, t, v = to_map(guess), to_map(teacher), variance.view(1, -1, 1, 1)
    return m.sum() if m.numel() == 0 else 0.5 * ((t - m).square() / v + v.log()).mean()


class VID(Method):
    """Variational information distillation: each teacher channel is guessed, with a learned doubt for every channel.

    Differs: maps of different sizes are compared at the smaller size, and tokens are maps; the paper has equal ones.
    The variances are learned, as in the paper; one widely used copy leaves them out of the optimiser.

    Use: features of which not all matter: a channel that can't be guessed is charged less. The loss may be negative,
    and falls further: compare it with itself only.

    Avoid: where plain softened probabilities will do: on CIFAR-100 they were ahead of it in all 13 pairs of networks
    that Tian et al. 2020 compare. And as the only teacher: it learns three convolutions for every stage.

    Args:
        variance: above 1e-5; what the doubts begin with.
        student_taps: places in the student; () has the end of every stage found.
        teacher_taps: places in the teacher, as many.

    Raises:
        ValueError: the variance is not above 1e-5.
        IncomparableFeatures: SR-M330, in `setup`, where a vector meets a map.
    """

    weight = 1.0
    default_taps = "stages"

    def __init__(
        self, *, variance: float = 5.0, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()
    ):
        super().__init__()
        if not LEAST < variance < math.inf:
            raise ValueError(f"variance must be above {LEAST}, got {variance}")
        self.variance = variance
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.guess, self.doubt = nn.ModuleList(), nn.ParameterList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Size the regressors, and doubt every channel alike."""
        found = checked_map_pairs(self, student, teacher)
        self.guess = nn.ModuleList(_regressor(s.shape[1], t.shape[1]).to(s.device) for s, t in found)
        above = self.variance - LEAST
        begin = above + math.log(-math.expm1(-above))  # softplus(begin) = above
        self.doubt = nn.ParameterList(torch.full((t.shape[1],), begin, device=t.device) for _, t in found)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"vid": ...}`: `vid_loss` summed over the stages."""
        found = []
        for (s, t), guess, doubt in zip(map_pairs(self, student, teacher), self.guess, self.doubt, strict=True):
            s, t = to_smaller_grid(s, t)
            found.append(vid_loss(guess(s), t, F.softplus(doubt) + LEAST))
        return {"vid": torch.stack(found).sum()}


def _regressor(narrow: int, wide: int) -> nn.Module:
    """The authors': three 1x1 convolutions without bias."""
    sizes = ((narrow, wide), (wide, wide), (wide, wide))
    first, second, third = (nn.Conv2d(c, d, 1, bias=False) for c, d in sizes)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)

"""How warm the softmax of a logit method is: one temperature for ever, over the run, or for each row."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

Policy = Literal["constant", "cosine", "learned", "adaptive", "max_logit"]
"""Where a temperature comes from, between `lowest` and `highest`:

constant: the highest, always.        cosine: from the highest at the first step down to the lowest at the last.
learned: one number, trained against the student.   adaptive: a row's, higher where the two networks rank alike.
max_logit: a row's, higher where the teacher's largest logit stands out.
"""

RISE = 1 / 24  # share of the run in which `Learned` reaches its full strength: the authors' 10 of 240, 5 of 120 epochs


def temperature_of(policy: Policy, highest: float, lowest: float) -> nn.Module:
    """The policy of that name; call it as `policy(student, teacher, progress)`.

    Its arguments are rows of logits [M, K], [M, K] and how much of the run is over, 0..1. It returns a temperature in
    units of logits, above 0 and finite, in the dtype and on the device of the rows: a scalar, or [M, 1], one a row.

    Raises:
        ValueError: no such policy; a bound is not above 0 or not finite; the lowest is above the highest in a policy
            that uses both.
    """
    if policy not in _POLICIES:
        raise ValueError(f"policy must be one of {', '.join(get_args(Policy))}, got {policy}")
    for name, value in (("temperature", highest), ("lowest", lowest)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0 and finite, got {value}")
    return _POLICIES[policy](highest, lowest)


def as_temperature(temperature: float | Tensor, like: Tensor) -> Tensor:
    """A number as a scalar tensor beside the rows `like`; a tensor as it is. So a fixed T is one T to the last bit."""
    return temperature if isinstance(temperature, Tensor) else like.new_full((), temperature)


def agreement(student: Tensor, teacher: Tensor) -> Tensor:
    """Spearman's rank correlation of every row with its counterpart, [M, K], [M, K] -> [M, 1] in -1..1.

    Ties share their mean rank. A row of equal numbers agrees with nothing: 0. Ranks are flat: there is no gradient.
    """
    a, b = (_ranks(x) - (x.shape[1] + 1) / 2 for x in (student, teacher))
    size = a.square().sum(1, keepdim=True) * b.square().sum(1, keepdim=True)
    return (a * b).sum(1, keepdim=True) / size.sqrt().clamp_min(0.25)  # two ranks that differ make it 0.5 at least


def warmth(rho: Tensor, highest: float, lowest: float) -> Tensor:
    """T = lowest + (highest - lowest) (1 - exp(-rho)), rho held in 0..1: `lowest` at rho <= 0, 63 % of the way at 1."""
    return lowest + (highest - lowest) * -torch.expm1(-rho.clamp(0, 1))


class _Policy(nn.Module):
    def __init__(self, highest: float, lowest: float):
        super().__init__()
        self.highest, self.lowest = highest, lowest


class _Between(_Policy):
    def __init__(self, highest: float, lowest: float):
        super().__init__(highest, lowest)
        if lowest > highest:
            raise ValueError(f"lowest must be at most the temperature, {highest}, got {lowest}")


class Constant(_Policy):
    """T = highest, whatever the rows and the progress. The lowest is not used."""

    def forward(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        """Scalar."""
        return as_temperature(self.highest, student)


class Cosine(_Between):
    """T = lowest + (highest - lowest) (1 + cos(pi progress)) / 2: soft targets first, sharp ones last."""

    def forward(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        """Scalar."""
        share = (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2
        return as_temperature(self.lowest + (self.highest - self.lowest) * share, student)


class Learned(_Between):
    """T = lowest + (highest - lowest) sigmoid(x), x trained to make the loss larger while the student makes it smaller.

    Li et al. 2023, https://arxiv.org/abs/2211.16231 (CTKD, the variant with one temperature for all images). The
    gradient of x is multiplied by -r, r = (1 - cos(pi min(24 progress, 1))) / 2: from none to all of it within the
    first 24th of the run, as theirs (10 of 240 epochs on CIFAR-100, 5 of 120 on ImageNet). x begins at 1, as theirs.

    Differs: the authors' sigmoid is multiplied by the upper bound and added to the lower, so that bounds 1 and 20 mean
    1..21. Here the bounds are the bounds; theirs are `lowest=1, temperature=21`.
    """

    def __init__(self, highest: float, lowest: float):
        super().__init__(highest, lowest)
        self.x = nn.Parameter(torch.tensor(1.0))

    def forward(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        """Scalar, with a reversed gradient."""
        strength = (1 - math.cos(math.pi * min(max(progress, 0.0) / RISE, 1.0))) / 2
        x = _Reversed.apply(self.x, strength).to(student.dtype)
        return self.lowest + (self.highest - self.lowest) * x.sigmoid()


class Adaptive(_Between):
    """T_m = lowest + (highest - lowest) (1 - exp(-rho_m)), rho_m Spearman's of student's and teacher's row m.

    Guo et al. 2024 (LUD), https://doi.org/10.1038/s41598-024-82647-6. A row that the student already ranks as the
    teacher does is compared at a higher temperature, where the small probabilities count.

    Differs: rho is held in 0..1. As printed, T falls below the lowest for rho < 0, and below 0. T never passes
    lowest + 0.632 (highest - lowest). No gradient flows through T.
    """

    @torch.no_grad()
    def forward(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        """[M, 1]."""
        return warmth(agreement(student, teacher), self.highest, self.lowest)


class MaxLogit(_Between):
    """T_m = the teacher's largest logit of row m less the row's mean, held in lowest..highest.

    The temperature divides the largest centred logit to 1, so that teachers of any size give targets of like
    softness. The idea to read a row's temperature off the teacher's maximum alone is that of Matsuyama et al. 2025,
    https://arxiv.org/abs/2503.09030.

    Differs: their formula was not at hand. Centring, the factor 1 and the bounds are ours.
    """

    @torch.no_grad()
    def forward(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        """[M, 1]."""
        centred = teacher.amax(1, keepdim=True) - teacher.mean(1, keepdim=True)
        return centred.clamp(self.lowest, self.highest)


_POLICIES: dict[str, type[_Policy]] = {
    "constant": Constant,
    "cosine": Cosine,
    "learned": Learned,
    "adaptive": Adaptive,
    "max_logit": MaxLogit,
}


def _ranks(x: Tensor) -> Tensor:
    """Every row's ranks, 1..K; equal numbers share the mean of theirs."""
    x = x.detach().contiguous()
    ordered = x.sort(1).values
    below, upto = torch.searchsorted(ordered, x), torch.searchsorted(ordered, x, right=True)
    return (below + upto + 1).to(x.dtype) / 2


class _Reversed(torch.autograd.Function):
    """x as it is; its gradient times -strength (Ganin and Lempitsky 2015, https://arxiv.org/abs/1409.7495)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grad, None

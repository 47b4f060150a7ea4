"""Policies for the temperature of a logit method: constant, scheduled over the run, learned, or one per row."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

Policy = Literal["constant", "cosine", "learned", "adaptive", "max_logit"]
"""How the temperature is chosen between `lowest` and `highest`:

constant: always the highest.
cosine: from the highest at the first step down to the lowest at the last.
learned: one number, trained adversarially against the student.
adaptive: per row, higher where the two networks rank the classes alike.
max_logit: per row, the teacher's largest centred logit.
"""

RAMP = 1 / 24  # share of the run in which the reversed gradient of `Learned` rises to its full strength


def temperature_of(policy: Policy, highest: float, lowest: float) -> nn.Module:
    """The policy of that name; it is called as `policy(student, teacher, progress)`.

    Its arguments are rows of logits [M, K], [M, K] and the progress of the run, 0..1. It returns a temperature in units
    of logits, above 0 and finite, in the dtype and on the device of the rows: a scalar, or [M, 1] with one per row.

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
    """A number becomes a scalar tensor with the dtype and device of the rows `like`; a tensor is unchanged."""
    return temperature if isinstance(temperature, Tensor) else like.new_full((), temperature)


def rank_correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """Spearman's rank correlation of two rows, [M, K], [M, K] -> [M, 1] in -1..1.

    Ties share their mean rank. For a row of equal numbers it is 0. There is no gradient, because ranks are piecewise
    constant.
    """
    a, b = (_ranks(x) - (x.shape[1] + 1) / 2 for x in (student, teacher))
    size = a.square().sum(1, keepdim=True) * b.square().sum(1, keepdim=True)
    return (a * b).sum(1, keepdim=True) / size.sqrt().clamp_min(0.25)  # avoids 0 / 0; it is 0 or at least 0.5


def correlation_temperature(rho: Tensor, highest: float, lowest: float) -> Tensor:
    """T = lowest + (highest - lowest) (1 - exp(-rho)), rho clamped to 0..1.

    T is `lowest` for rho <= 0, and reaches 63 % of the range at rho = 1.
    """
    return lowest + (highest - lowest) * -torch.expm1(-rho.clamp(0, 1))


class _Policy(nn.Module):
    def __init__(self, highest: float, lowest: float):
        super().__init__()
        self.highest, self.lowest = highest, lowest


class _Bounded(_Policy):
    """A policy that uses both bounds."""

    def __init__(self, highest: float, lowest: float):
        super().__init__(highest, lowest)
        if lowest > highest:
            raise ValueError(f"lowest must be at most the temperature, {highest}, got {lowest}")


class Constant(_Policy):
    """T = highest. The lowest, the rows and the progress are not used."""

    def forward(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        """Scalar."""
        return as_temperature(self.highest, student)


class Cosine(_Bounded):
    """T = lowest + (highest - lowest) (1 + cos(pi progress)) / 2: from soft targets to sharp ones."""

    def forward(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        """Scalar."""
        share = (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2
        return as_temperature(self.lowest + (self.highest - self.lowest) * share, student)


class Learned(_Bounded):
    """T = lowest + (highest - lowest) sigmoid(x), where x is trained to increase the loss that the student decreases.

    Li et al. 2023, https://arxiv.org/abs/2211.16231 (CTKD, the variant with one temperature for all images). The
    gradient of x is multiplied by -r, r = (1 - cos(pi min(24 progress, 1))) / 2, which rises from 0 to 1 within the
    first 24th of the run, as the authors' (10 of 240 epochs on CIFAR-100, 5 of 120 on ImageNet). x is initialised with
    1, as theirs.

    Differs: the authors multiply the sigmoid by the upper bound and add the lower one, so that their bounds 1 and 20
    give a temperature in 1..21. Here that is `lowest=1, temperature=21`.
    """

    def __init__(self, highest: float, lowest: float):
        super().__init__(highest, lowest)
        self.x = nn.Parameter(torch.tensor(1.0))

    def forward(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        """Scalar, whose gradient is reversed."""
        strength = (1 - math.cos(math.pi * min(max(progress, 0.0) / RAMP, 1.0))) / 2
        x = _Reversed.apply(self.x, strength).to(student.dtype)
        return self.lowest + (self.highest - self.lowest) * x.sigmoid()


class Adaptive(_Bounded):
    """T_m = lowest + (highest - lowest) (1 - exp(-rho_m)), rho_m Spearman's correlation of the two networks' rows m.

    Guo et al. 2024 (LUD), https://doi.org/10.1038/s41598-024-82647-6. A row that the student already ranks like the
    teacher is compared at a higher temperature, at which small probabilities count more.

    Differs: rho is clamped to 0..1, because the printed formula gives temperatures below the lowest, and below 0, for
    rho < 0. T is at most lowest + 0.632 (highest - lowest). No gradient flows through T.
    """

    @torch.no_grad()
    def forward(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        """[M, 1]."""
        return correlation_temperature(rank_correlation(student, teacher), self.highest, self.lowest)


class MaxLogit(_Bounded):
    """T_m = the teacher's largest logit of row m minus the row's mean, clamped to lowest..highest.

    Dividing by it gives a largest centred logit of 1, so that the targets are equally soft for teachers of any logit
    scale. The idea of deriving a row's temperature from the teacher's maximum alone is that of Matsuyama et al. 2025,
    https://arxiv.org/abs/2503.09030.

    Differs: their formula was not available. Centring, the factor 1 and the bounds are ours.
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
    """The ranks of each row, 1..K; equal numbers share their mean rank."""
    x = x.detach().contiguous()
    ordered = x.sort(1).values
    below, upto = torch.searchsorted(ordered, x), torch.searchsorted(ordered, x, right=True)
    return (below + upto + 1).to(x.dtype) / 2


class _Reversed(torch.autograd.Function):
    """The identity, with its gradient multiplied by -strength.

    Ganin and Lempitsky 2015, https://arxiv.org/abs/1409.7495
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grad, None

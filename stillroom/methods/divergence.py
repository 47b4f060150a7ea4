"""Match probabilities in one of six divergences. Agarwal et al. 2024, https://arxiv.org/abs/2306.13649, section 2."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.methods._checks import one_of
from stillroom.methods._logits import paired_rows, rows
from stillroom.methods._temperature import Policy, as_temperature, temperature_of
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms

Kind = Literal["kl", "rkl", "js", "gjs", "tv", "hellinger"]


def _kl(log_q: Tensor, log_p: Tensor, beta: float = 0.5) -> Tensor:
    """sum_k p (log p - log q), [M, K], [M, K] -> [M]: at least 0, without bound."""
    return (log_p.exp() * (log_p - log_q)).sum(1)


def _rkl(log_q: Tensor, log_p: Tensor, beta: float = 0.5) -> Tensor:
    """sum_k q (log q - log p): at least 0, without bound."""
    return _kl(log_p, log_q)


def _gjs(log_q: Tensor, log_p: Tensor, beta: float = 0.5) -> Tensor:
    """With m = beta p + (1 - beta) q, beta KL(p || m) + (1 - beta) KL(q || m): 0 up to beta's entropy in nats.

    Divided by beta it tends to KL(p || q) for beta -> 0; divided by 1 - beta, to KL(q || p) for beta -> 1.
    """
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    return beta * _kl(log_m, log_p) + (1 - beta) * _kl(log_m, log_q)


def _js(log_q: Tensor, log_p: Tensor, beta: float = 0.5) -> Tensor:
    """KL(p || m) / 2 + KL(q || m) / 2, m = (p + q) / 2: 0..ln 2, symmetric, and its root is a distance."""
    return _gjs(log_q, log_p, 0.5)


def _tv(log_q: Tensor, log_p: Tensor, beta: float = 0.5) -> Tensor:
    """sum_k |p - q| / 2: 0..1, the largest difference in probability that any set of classes has."""
    return (log_p.exp() - log_q.exp()).abs().sum(1) / 2


def _hellinger(log_q: Tensor, log_p: Tensor, beta: float = 0.5) -> Tensor:
    """sum_k (sqrt p - sqrt q)^2 / 2: 0..1, the square of Hellinger's distance."""
    return ((log_p / 2).exp() - (log_q / 2).exp()).square().sum(1) / 2


_KINDS: dict[str, tuple[Callable[[Tensor, Tensor, float], Tensor], int]] = {
    "kl": (_kl, 2),
    "rkl": (_rkl, 2),
    "js": (_js, 2),
    "gjs": (_gjs, 2),
    "tv": (_tv, 1),
    "hellinger": (_hellinger, 2),
}
"""Each divergence, and the power of p - q that it begins with near p = q."""


def divergence_loss(
    student: Tensor, teacher: Tensor, kind: Kind, temperature: float | Tensor, beta: float = 0.5
) -> Tensor:
    """T^n D(p, q), p = softmax(teacher / T), q = softmax(student / T): a mean over everything but the classes.

    n = 2 for all kinds but tv, n = 1 for tv. For large T, p - q falls as (teacher - student) / (K T) of centred logits,
    and D as its n-th power: near p = q the smooth kinds are c sum_k (p - q)^2 / (2 p), with c = 1 for kl and rkl, 1/4
    for js and hellinger, beta (1 - beta) for gjs, and tv is sum_k |p - q| / 2. T^n so keeps value and gradient at a
    size that T does not move: c |student - teacher|^2 / (2 K), and |student - teacher|_1 / (2 K) for tv. At
    temperature 1 this is the plain divergence, as a metric wants it.

    Args:
        student: logits [B, K] or [B, K, ...]; classes on axis 1.
        teacher: logits of the same shape.
        kind: kl, rkl, js, gjs, tv or hellinger.
        temperature: above 0, in units of logits; one for all, or [M, 1] for the M images or pixels, in their order.
        beta: the teacher's share of the mixture, above 0 and below 1. Only gjs reads it.

    Returns:
        Scalar, at least 0; 0 exactly when the two distributions agree. At most T^2 ln 2 nats for js, T^2 times beta's
        entropy for gjs, T for tv, T^2 for hellinger. An empty batch costs 0.
    """
    s, t = rows(student), rows(teacher)
    if s.numel() == 0:
        return s.sum()
    heat = as_temperature(temperature, s)
    of, order = _KINDS[kind]
    found = of(F.log_softmax(s / heat, dim=1), F.log_softmax(t / heat, dim=1), beta)
    return (heat.pow(order).flatten() * found).mean()


class Divergence(Method):
    """Probability matching in one of six divergences, so that the divergence can be compared with nothing else changed.

    Differs: these divergences are used on language models at temperature 1, on the student's own samples. Here they are
    used on images as `hinton` is, with its temperature and weight, so that kind kl is `hinton` itself.

    Use: js, hellinger or tv where the teacher is sure of wrong answers: they are bounded, so that one image cannot
    outweigh the others. rkl where the student is too small for all that the teacher says, and should settle for its
    likeliest classes. Near agreement js and hellinger pull a quarter as hard as kl, gjs beta (1 - beta) times as hard:
    divide the weight by that to compare kinds at one strength.

    Avoid: tv for a student that starts far off: its gradient dies where the student is sure and wrong, and it does not
    shrink near agreement. rkl where the small probabilities are what you want.

    Args:
        kind: kl (teacher's mean), rkl (student's mean), js, gjs, tv or hellinger.
        temperature: above 0; the highest one, where the policy changes it.
        beta: above 0 and below 1; the teacher's share of the mixture in gjs: near 0 it is like kl, near 1 like rkl.
        policy: where the temperature comes from: constant, cosine (falling over the run), learned (against the
            student), adaptive (by how alike the two rank the classes) or max_logit (by the teacher's largest logit).
        lowest: above 0, at most `temperature`; where a policy ends. The constant one does not use it.
        standardised: standardise both networks' logits first.

    Raises:
        ValueError: no such kind or policy, beta is not between 0 and 1, a temperature is not above 0 and finite, or the
            lowest is above the highest.
    """

    weight = 0.9

    def __init__(
        self,
        *,
        kind: Kind = "js",
        temperature: float = 4.0,
        beta: float = 0.5,
        policy: Policy = "constant",
        lowest: float = 1.0,
        standardised: bool = False,
    ):
        super().__init__()
        one_of(Kind, kind=kind)
        if not 0 < beta < 1:
            raise ValueError(f"beta must be above 0 and below 1, got {beta}")
        self.kind, self.temperature, self.beta = kind, temperature, beta
        self.policy, self.lowest, self.standardised = policy, lowest, standardised
        self.thermostat = temperature_of(policy, temperature, lowest)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{kind: ...}`, see `divergence_loss`."""
        s, t = paired_rows(student.pred, teacher.pred, standardised=self.standardised)
        return {self.kind: divergence_loss(s, t, self.kind, self.thermostat(s, t, progress), self.beta)}

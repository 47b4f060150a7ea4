"""Match probabilities by one of six divergences. Agarwal et al. 2024, https://arxiv.org/abs/2306.13649, section 2."""

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
    """sum_k p (log p - log q), [M, K], [M, K] -> [M]: at least 0, unbounded."""
    return (log_p.exp() * (log_p - log_q)).sum(1)


def _rkl(log_q: Tensor, log_p: Tensor, beta: float = 0.5) -> Tensor:
    """sum_k q (log q - log p): at least 0, unbounded."""
    return _kl(log_p, log_q)


def _gjs(log_q: Tensor, log_p: Tensor, beta: float = 0.5) -> Tensor:
    """Beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q: from 0 to the entropy of beta, in nats.

    Divided by beta it tends to KL(p || q) for beta -> 0; divided by 1 - beta, to KL(q || p) for beta -> 1.
    """
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    return beta * _kl(log_m, log_p) + (1 - beta) * _kl(log_m, log_q)


def _js(log_q: Tensor, log_p: Tensor, beta: float = 0.5) -> Tensor:
    """KL(p || m) / 2 + KL(q || m) / 2, m = (p + q) / 2: 0..ln 2, symmetric; its square root is a metric."""
    return _gjs(log_q, log_p, 0.5)


def _tv(log_q: Tensor, log_p: Tensor, beta: float = 0.5) -> Tensor:
    """sum_k |p - q| / 2: 0..1, the largest difference in the probability of any set of classes."""
    return (log_p.exp() - log_q.exp()).abs().sum(1) / 2


def _hellinger(log_q: Tensor, log_p: Tensor, beta: float = 0.5) -> Tensor:
    """sum_k (sqrt p - sqrt q)^2 / 2: 0..1, the squared Hellinger distance."""
    return ((log_p / 2).exp() - (log_q / 2).exp()).square().sum(1) / 2


_KINDS: dict[str, tuple[Callable[[Tensor, Tensor, float], Tensor], int]] = {
    "kl": (_kl, 2),
    "rkl": (_rkl, 2),
    "js": (_js, 2),
    "gjs": (_gjs, 2),
    "tv": (_tv, 1),
    "hellinger": (_hellinger, 2),
}
"""Each divergence, and its leading power of p - q near p = q."""


def divergence_loss(
    student: Tensor, teacher: Tensor, kind: Kind, temperature: float | Tensor, beta: float = 0.5
) -> Tensor:
    """T^n D(p, q), p = softmax(teacher / T), q = softmax(student / T): a mean over everything but the classes.

    n = 1 for tv, n = 2 for the others. For large T, p - q falls like (teacher - student) / (K T) of centred logits, and
    D like its n-th power: near p = q the smooth divergences are c sum_k (p - q)^2 / (2 p), with c = 1 for kl and rkl,
    1/4 for js and hellinger, beta (1 - beta) for gjs, and tv is sum_k |p - q| / 2. T^n makes value and gradient
    independent of a large T: c |student - teacher|^2 / (2 K), and |student - teacher|_1 / (2 K) for tv. At temperature
    1 this is the plain divergence.

    Args:
        student: logits [B, K] or [B, K, ...]; classes on axis 1.
        teacher: logits of the same shape.
        kind: kl, rkl, js, gjs, tv or hellinger.
        temperature: T, above 0, in units of logits; one for all, or [M, 1] for the M images or pixels, in their order.
        beta: the teacher's share of the mixture, above 0 and below 1. Only gjs uses it.

    Returns:
        Scalar, at least 0; 0 for equal distributions, and for an empty batch. At most T^2 ln 2 nats for js, T^2 times
        the entropy of beta for gjs, T for tv, T^2 for hellinger.
    """
    s, t = rows(student), rows(teacher)
    if s.numel() == 0:
        return s.sum()
    temperature = as_temperature(temperature, s)
    divergence, order = _KINDS[kind]
    values = divergence(F.log_softmax(s / temperature, dim=1), F.log_softmax(t / temperature, dim=1), beta)
    return (temperature.pow(order).flatten() * values).mean()


class Divergence(Method):
    """Probability matching by one of six divergences, so that divergences can be compared with everything else equal.

    Differs: these divergences were proposed for language models at temperature 1, on the student's own samples. Here
    they are used on images like `hinton`, with its temperature and weight, so that kind kl equals `hinton`.

    Use: js, hellinger or tv where the teacher is confidently wrong on some images: they are bounded, so that a single
    image cannot dominate. rkl where the student is too small to match all classes: it then concentrates on the most
    probable ones. Near p = q the gradients of js and hellinger are a quarter of kl's, those of gjs beta (1 - beta)
    times kl's: to compare divergences at equal strength, divide the weight by that.

    Avoid: tv for a student that is far from the teacher: its gradient vanishes where the student is confidently wrong,
    and does not shrink near agreement. rkl where small probabilities matter.

    Args:
        kind: kl (mode-covering), rkl (mode-seeking), js, gjs, tv or hellinger.
        temperature: above 0; the highest one, if the policy changes it.
        beta: above 0 and below 1; the teacher's share of the mixture in gjs: near 0 it is like kl, near 1 like rkl.
        policy: how the temperature is chosen: constant, cosine (decreasing over the run), learned (adversarially),
            adaptive (by rank correlation of the two networks' logits) or max_logit (by the teacher's largest logit).
        lowest: above 0, at most `temperature`; the lower bound of a policy. constant does not use it.
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

"""Match softened class probabilities. Hinton, Vinyals, Dean 2015, https://arxiv.org/abs/1503.02531, section 2."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stillroom.methods._logits import paired_rows, rows
from stillroom.methods._temperature import Policy, as_temperature, temperature_of
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms


def hinton_loss(student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)): a sum over classes, a mean over everything else.

    T^2 keeps the size of the gradient independent of T: for large T the gradient tends to (student - teacher) / K of
    centred logits. Dividing by K as well (`reduction="mean"`, as in several libraries) gives another, K times smaller
    loss.

    Args:
        student: logits [B, K] or [B, K, ...]; classes on axis 1.
        teacher: logits of the same shape.
        temperature: T, above 0, in units of logits; one for all, or [M, 1] for the M images or pixels, in their order.
            Each row's divergence is then multiplied by its own T^2.

    Returns:
        Scalar in nats, at least 0; 0 for equal distributions, and for an empty batch.
    """
    s, t = rows(student), rows(teacher)
    if s.numel() == 0:
        return s.sum()
    temperature = as_temperature(temperature, s)
    log_q, log_p = F.log_softmax(s / temperature, dim=1), F.log_softmax(t / temperature, dim=1)
    divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
    return (temperature.square().flatten() * divergence).mean()


class Hinton(Method):
    """Matching of softened probabilities, for any prediction with classes on axis 1.

    Differs: no known difference for a constant temperature; for the other policies see `_temperature.py`.

    Use: first, and as the baseline for every other method. It needs neither labels nor inner features, only two
    networks with the same classes.

    Avoid: with default arguments, for a strong teacher and a much smaller student in a modern training recipe. Huang et
    al. 2022 measured a decrease there (MobileNetV2 on ImageNet: 73.6 without a teacher, 71.7 with this, 74.4 with
    `dist`); take `dist`, or `standardised`.

    Args:
        temperature: above 0; the larger, the more the probabilities of the wrong classes count. The highest one, if the
            policy changes it.
        policy: how the temperature is chosen: constant, cosine (decreasing over the run), learned (adversarially),
            adaptive (by rank correlation of the two networks' logits) or max_logit (by the teacher's largest logit).
        lowest: above 0, at most `temperature`; the lower bound of a policy. constant does not use it.
        standardised: standardise both networks' logits first. The authors then use temperature 2 and weight 9.

    Raises:
        ValueError: a temperature is not above 0 and finite, the lowest is above the highest, or no such policy.
    """

    weight = 0.9

    def __init__(
        self,
        *,
        temperature: float = 4.0,
        policy: Policy = "constant",
        lowest: float = 1.0,
        standardised: bool = False,
    ):
        super().__init__()
        self.temperature, self.policy, self.lowest, self.standardised = temperature, policy, lowest, standardised
        self.thermostat = temperature_of(policy, temperature, lowest)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"kl": ...}`, see `hinton_loss`."""
        s, t = paired_rows(student.pred, teacher.pred, standardised=self.standardised)
        return {"kl": hinton_loss(s, t, self.thermostat(s, t, progress))}

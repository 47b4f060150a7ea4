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

    T^2 keeps the gradient's size when T changes: for large T the gradient tends to (student - teacher) / K of centred
    logits. Dividing by K as well (`reduction="mean"`, found in several libraries) is another, K times weaker loss.

    Args:
        student: logits [B, K] or [B, K, ...]; classes on axis 1.
        teacher: logits of the same shape.
        temperature: above 0, in units of logits; one for all, or [M, 1] for the M images or pixels, in their order.
            Then every row's divergence is multiplied by its own T^2.

    Returns:
        Scalar in nats, at least 0; 0 exactly when the two distributions agree. An empty batch costs 0.
    """
    s, t = rows(student), rows(teacher)
    if s.numel() == 0:
        return s.sum()
    heat = as_temperature(temperature, s)
    log_q, log_p = F.log_softmax(s / heat, dim=1), F.log_softmax(t / heat, dim=1)
    divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
    return (heat.square().flatten() * divergence).mean()


class Hinton(Method):
    """Softened-probability matching, for any prediction with classes on axis 1.

    Differs: nothing known for the constant temperature; `_temperature.py` says it of the other policies.

    Use: first, and as what every other method has to beat. It needs no labels and no inner features, so any two
    networks with the same classes will do.

    Avoid: as it stands, for a strong teacher over a much smaller student in a modern training recipe. Huang et al. 2022
    measured a loss there (MobileNetV2 on ImageNet 73.6 without a teacher, 71.7 with this, 74.4 with `dist`); take
    `dist`, or `standardised`.

    Args:
        temperature: above 0; larger shows the student more of what the teacher thinks of the wrong classes. The
            highest one, where the policy changes it.
        policy: where the temperature comes from: constant, cosine (falling over the run), learned (against the
            student), adaptive (by how alike the two rank the classes) or max_logit (by the teacher's largest logit).
        lowest: above 0, at most `temperature`; where a policy ends. The constant one does not use it.
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

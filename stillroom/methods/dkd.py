"""Match the true class and the others separately. Zhao et al. 2022 (DKD), https://arxiv.org/abs/2203.08679, eq. 7."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.methods._checks import at_least
from stillroom.methods._logits import labelled_rows, paired_rows
from stillroom.methods._target import mean_of_rows, other_entries, true_entry
from stillroom.methods._temperature import Policy, as_temperature, temperature_of
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms


def dkd_loss(
    student: Tensor, teacher: Tensor, target: Tensor, *, alpha: float, beta: float, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    """(alpha T^2 KL(b_t || b_s), beta T^2 KL(q_t || q_s)), means over rows; their sum is the paper's loss.

    With p = softmax(z / T) and y the true class, b = (p_y, 1 - p_y), and q is p without p_y, normalised to sum 1.
    Hinton's loss is KL(b_t || b_s) + (1 - p_y of the teacher) KL(q_t || q_s): a confident teacher suppresses the second
    term.

    Args:
        student: logits [M, K] or [B, K, ...], K at least 2.
        teacher: logits of the same shape.
        target: true classes, one for each row, 0..K-1.
        alpha: weight of the first part.
        beta: weight of the second part.
        temperature: T, above 0, in units of logits; one for all, or [M, 1].

    Returns:
        Two scalars in nats, each at least 0; 0 for equal probabilities, and without rows. With K = 2 the second is
        always 0.
    """
    s, t = paired_rows(student, teacher)
    temperature = as_temperature(temperature, s)
    s, t, square = s / temperature, t / temperature, temperature.square().flatten()
    binary = _divergence(_binary(s, target), _binary(t, target))
    rest = _divergence(F.log_softmax(other_entries(s, target), dim=1), F.log_softmax(other_entries(t, target), dim=1))
    return alpha * mean_of_rows(square * binary), beta * mean_of_rows(square * rest)


class DKD(Method):
    """Decoupled distillation: the teacher's distribution over the wrong classes counts fully, however confident it is.

    Differs: the true class is selected by index instead of adding -1000 to its logit. The authors raise the weight over
    the first 20 of 240 epochs; here that is `warmup_fraction` in the recipe. With two classes there is only one wrong
    class, so "nckd" is left out.

    Use: with clean labels and a teacher so confident that the loss of `hinton` carries little information. With
    `warmup_fraction = 0.083` it is trained like the authors'.

    Avoid: with noisy labels, which it trusts; without labels; with very many classes and a weak student, where beta = 8
    can dominate the label loss.

    Args:
        alpha: at least 0; weight of the true class's part.
        beta: at least 0; weight of the other classes' part. The authors use 8 for most pairs, and 0.5 to 10 overall.
        temperature: above 0. The highest one, if the policy changes it.
        policy: how the temperature is chosen: constant, cosine, learned, adaptive or max_logit, as for `hinton`.
        lowest: above 0, at most `temperature`; the lower bound of a policy. constant does not use it.
        standardised: standardise both networks' logits first.

    Raises:
        ValueError: a weight is below 0, a temperature not above 0 and finite, the lowest above the highest, or no such
            policy.
        LabelsNotClasses: SR-M332, in `loss`, when there is not one class label for each prediction.
    """

    weight = 1.0
    needs_labels = True

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        policy: Policy = "constant",
        lowest: float = 1.0,
        standardised: bool = False,
    ):
        super().__init__()
        at_least(0, alpha=alpha, beta=beta)
        self.alpha, self.beta = alpha, beta
        self.temperature, self.policy, self.lowest, self.standardised = temperature, policy, lowest, standardised
        self.thermostat = temperature_of(policy, temperature, lowest)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"tckd": ..., "nckd": ...}`, see `dkd_loss`."""
        s, t, y = labelled_rows(batch, *paired_rows(student.pred, teacher.pred, standardised=self.standardised))
        temperature = self.thermostat(s, t, progress)
        tckd, nckd = dkd_loss(s, t, y, alpha=self.alpha, beta=self.beta, temperature=temperature)
        return {"tckd": tckd, "nckd": nckd} if s.shape[1] > 2 else {"tckd": tckd}


def _binary(rows: Tensor, target: Tensor) -> Tensor:
    """(log p_y, log(1 - p_y)), [M, 2]; the second from the other classes' logits, because 1 - p_y would cancel."""
    logits = torch.stack([true_entry(rows, target), other_entries(rows, target).logsumexp(1)], 1)
    return logits - rows.logsumexp(1, keepdim=True)


def _divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(p || q) of each row, [M]."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)

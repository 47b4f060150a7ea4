"""Cross-entropy with normalised wrong classes. Yang et al. 2023 (NKD), https://arxiv.org/abs/2303.13005, section 3."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stillroom.methods._checks import above, at_least
from stillroom.methods._logits import labelled_rows, paired_rows
from stillroom.methods._target import mean_of_rows, other_entries, target_loss
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms


def nkd_loss(
    student: Tensor, teacher: Tensor, target: Tensor, *, gamma: float, temperature: float
) -> tuple[Tensor, Tensor]:
    """(-p_t(y) log p_s(y), -gamma T^2 sum_{c != y} q_t(c) log q_s(c)), means over rows; their sum is the paper's loss.

    p = softmax(z) at temperature 1, y the true class; q = softmax(z / T) over the other classes. Both parts are
    cross-entropies: for equal networks the second has gradient 0, and its value is gamma T^2 times the teacher's
    entropy.

    Args:
        student: logits [M, K] or [B, K, ...], K at least 2.
        teacher: logits of the same shape.
        target: true classes, one for each row, 0..K-1.
        gamma: weight of the second part.
        temperature: T, above 0, in units of logits; of the second part.

    Returns:
        Two scalars in nats, each at least 0. With K = 2 the second is always 0. Both are 0 without rows.
    """
    s, t = paired_rows(student, teacher)
    log_q = F.log_softmax(other_entries(s, target) / temperature, dim=1)
    q = F.softmax(other_entries(t, target) / temperature, dim=1)
    return target_loss(s, t, target), gamma * temperature**2 * mean_of_rows(-(q * log_q).sum(1))


class NKD(Method):
    """Normalised distillation: a soft label for the true class, and a normalised distribution over the other classes.

    Differs: no known difference, except that "others" is left out with two classes, where it is always 0.

    Use: with clean labels, and together with a feature loss between ViTs (`vitkd`), as the authors do.

    Avoid: with noisy labels or none; as a measure of agreement, because it is not 0 for equal networks.

    Args:
        gamma: at least 0; weight of the other classes' part.
        temperature: above 0; of the other classes' part.
        standardised: standardise both networks' logits first.

    Raises:
        ValueError: gamma is below 0, or the temperature not above 0.
        LabelsNotClasses: SR-M332, in `loss`, when there is not one class label for each prediction.
    """

    weight = 1.0
    needs_labels = True

    def __init__(self, *, gamma: float = 1.5, temperature: float = 1.0, standardised: bool = False):
        super().__init__()
        at_least(0, gamma=gamma)
        above(0, temperature=temperature)
        self.gamma, self.temperature, self.standardised = gamma, temperature, standardised

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"target": ..., "others": ...}`, see `nkd_loss`."""
        s, t, y = labelled_rows(batch, *paired_rows(student.pred, teacher.pred, standardised=self.standardised))
        target, rest = nkd_loss(s, t, y, gamma=self.gamma, temperature=self.temperature)
        return {"target": target, "others": rest} if s.shape[1] > 2 else {"target": target}

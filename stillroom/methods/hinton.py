"""Match softened class probabilities. Hinton, Vinyals, Dean 2015, https://arxiv.org/abs/1503.02531, section 2."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms


def hinton_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)): a sum over classes, a mean over everything else.

    T^2 keeps the gradient's size when T changes: for large T the gradient tends to (student - teacher) / K of centred
    logits. Dividing by K as well (`reduction="mean"`, found in several libraries) is another, K times weaker loss.

    Args:
        student: logits [B, K] or [B, K, ...]; classes on axis 1.
        teacher: logits of the same shape.
        temperature: above 0, in units of logits.

    Returns:
        Scalar in nats, at least 0; 0 exactly when the two distributions agree. An empty batch costs 0.
    """
    if student.numel() == 0:
        return student.sum()
    s = F.log_softmax(student.float() / temperature, dim=1)
    t = F.log_softmax(teacher.float() / temperature, dim=1)
    return F.kl_div(s, t, reduction="none", log_target=True).sum(1).mean() * temperature**2


def standardise(logits: Tensor) -> Tensor:
    """Every image's logits with mean 0 and standard deviation 1: (z - mean) / (std + 1e-7), classes on axis 1.

    The student then has to match the shape of the teacher's logits, not their size. Unchanged by z -> a z + b, a > 0.
    Sun et al. 2024, https://arxiv.org/abs/2403.01427, eq. 5; the standard deviation is the unbiased one, as in
    the authors' code. A row of equal logits becomes zeros.
    """
    z = logits.float()
    return (z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-7)


class Hinton(Method):
    """Softened-probability matching, for any prediction with classes on axis 1.

    Args:
        temperature: above 0; larger shows the student more of what the teacher thinks of the wrong classes.
        standardised: standardise both networks' logits first. The authors then use temperature 2 and weight 9.

    Raises:
        ValueError: the temperature is not above 0.
    """

    weight = 0.9

    def __init__(self, *, temperature: float = 4.0, standardised: bool = False):
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.temperature, self.standardised = temperature, standardised

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"kl": ...}`, see `hinton_loss`."""
        s, t = student.pred, teacher.pred
        if self.standardised:
            s, t = standardise(s), standardise(t)
        return {"kl": hinton_loss(s, t, self.temperature)}

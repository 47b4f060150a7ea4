"""The true class and the other classes, separated: common parts of DKD, NKD and WKD-L."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def true_entry(rows: Tensor, target: Tensor) -> Tensor:
    """The true class's entry of each row, [M, K], [M] -> [M]."""
    return rows.gather(1, target.flatten()[:, None]).squeeze(1)


def other_entries(rows: Tensor, target: Tensor) -> Tensor:
    """All entries but the true class's, in order, [M, K], [M] -> [M, K - 1].

    They are selected by index; the authors' code of DKD adds -1000 to the true class instead, which overflows in half
    precision.
    """
    index = torch.arange(rows.shape[1] - 1, device=rows.device).expand(len(rows), -1)
    return rows.gather(1, index + (index >= target.flatten()[:, None]))


def target_loss(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """-mean(p_t log p_s), p the softmax probability of the true class: cross-entropy with a soft label.

    Args:
        student: logits [M, K].
        teacher: logits [M, K].
        target: true classes [M].

    Returns:
        Scalar in nats, at least 0; 0 when the student's probability of every true class is 1, and without rows.
    """
    log_p = F.log_softmax(student, dim=1)
    return mean_of_rows(-true_entry(teacher.softmax(1), target) * true_entry(log_p, target))


def mean_of_rows(per_row: Tensor) -> Tensor:
    """The mean of [M]; 0, with a gradient, for no rows."""
    return per_row.sum() / max(len(per_row), 1)

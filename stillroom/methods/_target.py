"""The true class and the others apart: what DKD, NKD and WKD-L are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def true(rows: Tensor, target: Tensor) -> Tensor:
    """The true class's entry of every row, [M, K], [M] -> [M]."""
    return rows.gather(1, target.flatten()[:, None]).squeeze(1)


def others(rows: Tensor, target: Tensor) -> Tensor:
    """All entries but the true class's, in their order, [M, K], [M] -> [M, K - 1].

    They are picked out, not pushed down by -1000 as in the authors' code of DKD, which overflows half precision.
    """
    places = torch.arange(rows.shape[1] - 1, device=rows.device).expand(len(rows), -1)
    return rows.gather(1, places + (places >= target.flatten()[:, None]))


def target_loss(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """-mean(p_t log p_s), p the softmax probability of the true class: a cross-entropy that believes the teacher.

    Args:
        student: logits [M, K].
        teacher: logits [M, K].
        target: true classes [M].

    Returns:
        Scalar in nats, at least 0; 0 when the student is sure. No rows cost 0.
    """
    said = F.log_softmax(student, dim=1)
    return mean(-true(teacher.softmax(1), target) * true(said, target))


def mean(per_row: Tensor) -> Tensor:
    """The mean of [M]; 0, with a gradient, where there is no row."""
    return per_row.sum() / max(len(per_row), 1)

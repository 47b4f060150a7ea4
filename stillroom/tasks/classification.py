"""One class an image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stillroom.types import Batch, Output, Terms


class Classification:
    """Cross-entropy of logits [B, K] with labels [B].

        ce = -mean_b log softmax(logits_b)[label_b]

    At least 0; 0 when every label has probability 1. With `smoothing` s the label's distribution is
    (1 - s) one-hot + s / K (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, section 7), and the least
    possible value is that distribution's entropy.

    Args:
        smoothing: 0 to below 1. Smoothed teachers teach worse (Müller et al. 2019, https://arxiv.org/abs/1906.02629).
    """

    def __init__(self, *, smoothing: float = 0.0):
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be at least 0 and below 1, got {smoothing}")
        self.smoothing = smoothing

    def outputs(self, classes: int) -> int:
        """One logit a class."""
        return classes

    def loss(self, output: Output, batch: Batch) -> Terms:
        """`{"ce": ...}`."""
        return {"ce": F.cross_entropy(output.pred.float(), batch.target, label_smoothing=self.smoothing)}

    def decode(self, output: Output) -> Tensor:
        """The class of the largest logit, [B]."""
        return output.pred.argmax(1)

    def score(self, output: Output, batch: Batch) -> Tensor:
        """1 where the largest logit is the label's, else 0."""
        return (self.decode(output) == batch.target).float()

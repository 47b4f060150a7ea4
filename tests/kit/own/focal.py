"""A task of one's own, whole: classification with the focal loss. Lin et al. 2017, arXiv 1708.02002, eq. 4."""

from __future__ import annotations

import torch.nn.functional as F

from stillroom.tasks.classification import Classification


class Focal(Classification):
    """-mean_b (1 - p_b)^gamma log p_b, p_b the probability of image b's label; of the images that have one.

    Args:
        gamma: at least 0; 0 is cross-entropy.
    """

    def __init__(self, *, gamma: float = 2.0):
        super().__init__()
        self.gamma = gamma

    def loss(self, output, batch):
        """`{"focal": ...}`."""
        known = batch.target >= 0  # images without a label have -1
        log = F.log_softmax(output.pred[known].float(), 1).gather(1, batch.target[known, None]).squeeze(1)
        return {"focal": -((1 - log.exp()) ** self.gamma * log).sum() / max(1, len(log))}

"""The gate's verdict on a classifier's answers."""

from __future__ import annotations

import torch
from torch import Tensor

from stillroom.export._verify import Verification
from stillroom.metrics.agreement import Agreement
from stillroom.types import Batch, Output


def verify(reference: Tensor, candidate: Tensor, **limits: float) -> Verification:
    """What it says of logits [N, K] of a file, held against those of its network."""
    metric = Agreement(classes=("a", "b", "c"))
    batch = Batch(images=torch.zeros(len(candidate), 1, 1, 1), target=None, keys=torch.arange(len(candidate)))
    metric.update(Output(pred=candidate), batch, Output(pred=reference))
    return Verification(figure=metric.compute()["agreement"], **limits)

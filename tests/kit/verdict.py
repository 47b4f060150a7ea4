"""The gate's verdict on a classifier's answers."""

from __future__ import annotations

from torch import Tensor

from kit.batches import batch_of
from stillroom.export._verify import Verification
from stillroom.metrics.agreement import Agreement
from stillroom.types import Output


def verify(reference: Tensor, candidate: Tensor, **limits: float) -> Verification:
    """What it says of logits [N, K] of a file, held against those of its network."""
    metric = Agreement(classes=("a", "b", "c"))
    batch = batch_of(len(candidate))
    metric.update(Output(pred=candidate), batch, Output(pred=reference))
    return Verification(figure=metric.compute()["agreement"], **limits)

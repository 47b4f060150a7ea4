"""Agreement with a reference, pixel by pixel: how much of an image both give the same class, right or wrong."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from stillroom.metrics._ratios import BOOTSTRAP, ratios
from stillroom.metrics.measurement import Measurement
from stillroom.metrics.metric import Metric, apart, decide
from stillroom.metrics.overlap import tally
from stillroom.types import Batch, Output, OutputKind, TargetKind


def same_share(said: Tensor, other: Tensor) -> Tensor:
    """The share of pixels with the same class: [B, H, W], [B, H, W] -> [B] float32. -1 is like nothing."""
    other = other.to(said.device)
    return ((said == other) & (said >= 0)).float().mean((1, 2))


class PixelAgreement(Metric):
    """Share of all pixels, void ones too, where both name the same class, in 0..1.

    A pixel whose logits are not finite agrees with nothing. Batches without a reference are not counted. The figure
    also says how far the probabilities are apart, the largest difference over pixels and classes and the mean one, and
    the mean IoU with the reference's answer as the truth, which small regions move more than the share does.

    Args:
        classes: names in label order.
    """

    output_kind: ClassVar[OutputKind] = "pixels"
    target_kind: ClassVar[TargetKind | None] = None

    def __init__(self, *, classes: tuple[str, ...]):
        super().__init__(classes, rows=("same", "largest", "mean", "pixels"))

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Compare the images that both have seen."""
        if reference is None:
            return
        said, expected = decide(output.pred), decide(reference.pred).to(output.pred.device)
        size = torch.full((len(said),), said[0].numel() if len(said) else 0)
        # One by one: doubles of a whole batch of pixels would fill the memory.
        found = [_furthest(ours, theirs) for ours, theirs in zip(output.pred, reference.pred, strict=True)]
        largest, mean = torch.tensor(found, dtype=torch.float64).view(-1, 2).unbind(1)
        same = ((said == expected) & (said >= 0)).sum((1, 2)).cpu()
        self._keep(
            same=torch.stack((same, size), 1),
            largest=largest,
            mean=mean,
            pixels=tally(said, expected, len(self.classes)),
        )

    def compute(self) -> dict[str, Measurement]:
        """`agreement`, with its interval; nothing when nobody was compared with."""
        same, pixels = self._kept("same"), self._kept("pixels")
        largest, mean = self._kept("largest"), self._kept("mean")
        if same is None or pixels is None or largest is None or mean is None or not len(same):
            return {}
        found = ratios(same[:, 0], same[:, 1])
        both, said, true = (part.numpy() for part in pixels.unbind(2))
        overlap = ratios(both, said + true - both).value
        extra = {"max_difference": float(largest.max()), "mean_difference": float(mean.sort().values.mean())}
        how = f"share of pixels where both name the same class; {BOOTSTRAP}"
        return {
            "agreement": Measurement(
                value=found.value,
                ci95=found.intervals()[0],
                n=len(same),
                how=how,
                extra=extra | ({} if overlap != overlap else {"miou": overlap}),
            )
        }


def _furthest(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    """The largest and the mean difference of probabilities of one image [K, H, W]."""
    difference = apart(ours[None], theirs[None])
    return float(difference.max()), float(difference.mean())

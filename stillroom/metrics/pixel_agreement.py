"""Agreement with a reference by pixel: where both predict the same class, right or wrong."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from stillroom.metrics._ratios import BOOTSTRAP, ratios
from stillroom.metrics.measurement import Measurement
from stillroom.metrics.metric import Metric, predicted_class, probability_difference
from stillroom.metrics.overlap import pixel_counts
from stillroom.types import Batch, Output, OutputKind, TargetKind


def equal_pixel_share(predicted: Tensor, other: Tensor) -> Tensor:
    """The share of pixels with the same class: [B, H, W], [B, H, W] -> [B] float32. -1 equals nothing."""
    other = other.to(predicted.device)
    return ((predicted == other) & (predicted >= 0)).float().mean((1, 2))


class PixelAgreement(Metric):
    """Share of all pixels, void ones too, for which both predict the same class, in 0..1.

    A pixel whose logits are not finite agrees with none. Batches without a reference are not counted. The figure also
    holds the largest and the mean difference of the probabilities over pixels and classes, and the mean IoU with the
    reference's classes as the truth, in which small regions count more.

    Args:
        classes: names in label order.
    """

    output_kind: ClassVar[OutputKind] = "pixels"
    target_kind: ClassVar[TargetKind | None] = None

    def __init__(self, *, classes: tuple[str, ...]):
        super().__init__(classes, rows=("same", "largest", "mean", "pixels"))

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Compare one batch with the reference."""
        if reference is None:
            return
        predicted, expected = predicted_class(output.pred), predicted_class(reference.pred).to(output.pred.device)
        size = torch.full((len(predicted),), predicted[0].numel() if len(predicted) else 0)
        # Image by image: float64 logits of a whole batch may not fit into memory.
        found = [_differences(logits, other) for logits, other in zip(output.pred, reference.pred, strict=True)]
        largest, mean = torch.tensor(found, dtype=torch.float64).view(-1, 2).unbind(1)
        same = ((predicted == expected) & (predicted >= 0)).sum((1, 2)).cpu()
        self._add_rows(
            same=torch.stack((same, size), 1),
            largest=largest,
            mean=mean,
            pixels=pixel_counts(predicted, expected, len(self.classes)),
        )

    def compute(self) -> dict[str, Measurement]:
        """`agreement`, with its interval; empty without a reference."""
        same, pixels = self._all_rows("same"), self._all_rows("pixels")
        largest, mean = self._all_rows("largest"), self._all_rows("mean")
        if same is None or pixels is None or largest is None or mean is None or not len(same):
            return {}
        found = ratios(same[:, 0], same[:, 1])
        both, predicted, true = (part.numpy() for part in pixels.unbind(2))
        overlap = ratios(both, predicted + true - both).value
        extra = {"max_difference": float(largest.max()), "mean_difference": float(mean.sort().values.mean())}
        how = f"share of pixels for which both predict the same class; {BOOTSTRAP}"
        return {
            "agreement": Measurement(
                value=found.value,
                ci95=found.intervals()[0],
                n=len(same),
                how=how,
                extra=extra | ({} if overlap != overlap else {"miou": overlap}),
            )
        }


def _differences(logits: Tensor, reference: Tensor) -> tuple[float, float]:
    """The largest and the mean difference of the probabilities of one image [K, H, W]."""
    difference = probability_difference(logits[None], reference[None])
    return float(difference.max()), float(difference.mean())

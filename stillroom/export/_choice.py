"""The calibration of an int8 file is chosen by its agreement with the float file, on the calibration images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from stillroom.metrics.metric import Metric
from stillroom.types import Batch, Output, PredictFn

ENOUGH = 0.995
"""Agreement that ends the search. It is what a float file must reach: of 256 images one may differ, and by 256 images
methods that are this good can't be ranked."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """An int8 file and how near its outputs are to the float file's, on N calibration images.

    Attributes:
        method: how the ranges were taken.
        path: the file.
        agreement: by the task's own measure, in 0..1.
        mean_difference: of their probabilities or scores.
        n: N.
    """

    method: str
    path: Path
    agreement: float
    mean_difference: float
    n: int

    def facts(self) -> dict[str, str]:
        """The facts of its calibration, for the file."""
        images = f"with the float file, on {self.n} calibration images"
        return {"calibration": self.method, "calibration_agreement": f"{self.agreement:.4f} ({images})"}


def choose(
    methods: Sequence[str],
    make: Callable[[str], Path],
    load: Callable[[Path], PredictFn],
    source: Path,
    batches: Sequence[Tensor],
    agreement: Callable[[], Metric],
) -> Trial:
    """Try methods in turn until one is good enough, and return the best of those tried.

    Args:
        methods: the simplest first.
        make: writes the file of a method.
        load: opens a file.
        source: the float file.
        batches: image batches [B, C, H, W] in 0..1, of the training split: test images must not decide.
        agreement: makes a metric whose figure is called `agreement`.
    """
    expected = _predict(load(source), batches)
    tried: list[Trial] = []
    for method in methods:
        path = make(method)
        tried.append(_compare(method, path, expected, _predict(load(path), batches), batches, agreement()))
        if tried[-1].agreement >= ENOUGH:
            break
    return best(tried)


def best(trials: Iterable[Trial]) -> Trial:
    """The one of most agreement; of equals, the one of smallest mean difference; of equals again, the first."""
    return min(trials, key=lambda trial: (-trial.agreement, trial.mean_difference))


def _predict(predict: PredictFn, batches: Sequence[Tensor]) -> list[Output]:
    return [predict(batch) for batch in batches]


def _compare(
    method: str, path: Path, expected: list[Output], found: list[Output], batches: Sequence[Tensor], metric: Metric
) -> Trial:
    numbers = count()
    for images, output, reference in zip(batches, found, expected, strict=True):
        keys = torch.tensor([next(numbers) for _ in images])
        metric.update(output, Batch(images=images, target=None, keys=keys), reference)
    figures, n = metric.compute(), sum(len(images) for images in batches)
    if "agreement" not in figures:  # there was nothing to agree on, such as no box in any image
        return Trial(method=method, path=path, agreement=1.0, mean_difference=0.0, n=n)
    difference = float(figures["agreement"].extra.get("mean_difference", 0.0))
    return Trial(method=method, path=path, agreement=metric.value(), mean_difference=difference, n=n)

"""Which calibration an int8 file is made with is measured: by what the file answers, on the calibration images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from stillroom.metrics.metric import Metric
from stillroom.types import Batch, Output

ENOUGH = 0.995
"""Agreement that ends the search. It is what a float file must reach: of 256 images one may differ, and between
methods that are this good, 256 images can no longer tell which is better."""

Speaker = Callable[[Tensor], Output]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """An int8 file and how near its answers are to the float file's, on N calibration images.

    Attributes:
        method: how the ranges were taken.
        path: the file.
        agreement: by the task's own measure, in 0..1.
        apart: the mean difference of their probabilities or scores.
        n: N.
    """

    method: str
    path: Path
    agreement: float
    apart: float
    n: int

    def facts(self) -> dict[str, str]:
        """What the file says of its making."""
        images = f"with the float file, on {self.n} calibration images"
        return {"calibration": self.method, "calibration_agreement": f"{self.agreement:.4f} ({images})"}


def choose(
    methods: Sequence[str],
    make: Callable[[str], Path],
    load: Callable[[Path], Speaker],
    source: Path,
    batches: Sequence[Tensor],
    agreement: Callable[[], Metric],
) -> Trial:
    """Try methods in turn until one is good enough; the best of those that were tried.

    Args:
        methods: the simplest first.
        make: writes the file of a method.
        load: opens a file.
        source: the float file.
        batches: image batches [B, C, H, W] in 0..1, of the training split: the test images must not choose.
        agreement: makes a metric whose figure is called `agreement`.
    """
    expected = _answers(load(source), batches)
    tried: list[Trial] = []
    for method in methods:
        path = make(method)
        tried.append(_compare(method, path, expected, _answers(load(path), batches), batches, agreement()))
        if tried[-1].agreement >= ENOUGH:
            break
    return best(tried)


def best(trials: Iterable[Trial]) -> Trial:
    """Most agreement; of equals the smallest difference in probability; of equals again the first."""
    return min(trials, key=lambda trial: (-trial.agreement, trial.apart))


def _answers(speaker: Speaker, batches: Sequence[Tensor]) -> list[Output]:
    return [speaker(batch) for batch in batches]


def _compare(
    method: str, path: Path, expected: list[Output], said: list[Output], batches: Sequence[Tensor], metric: Metric
) -> Trial:
    numbers = count()
    for images, answer, reference in zip(batches, said, expected, strict=True):
        keys = torch.tensor([next(numbers) for _ in images])
        metric.update(answer, Batch(images=images, target=None, keys=keys), reference)
    figures, shown = metric.compute(), sum(len(images) for images in batches)
    if "agreement" not in figures:  # there was nothing to agree on, such as no box in any image
        return Trial(method=method, path=path, agreement=1.0, apart=0.0, n=shown)
    found = figures["agreement"]
    apart = float(found.extra.get("mean_difference", 0.0))
    return Trial(method=method, path=path, agreement=metric.value(), apart=apart, n=shown)

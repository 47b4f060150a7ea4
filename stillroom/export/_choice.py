"""Which calibration an int8 file is made with is measured: by what the file answers, on the calibration images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stillroom.metrics.metric import decide
from stillroom.types import Output

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
        agree: images on which both name the same class.
        apart: mean |p_float - p_int8| over images and classes, in 0..1.
        n: N.
    """

    method: str
    path: Path
    agree: int
    apart: float
    n: int

    def facts(self) -> dict[str, str]:
        """What the file says of its making."""
        images = f"{self.agree} of {self.n} calibration images, against the float file"
        return {"calibration": self.method, "calibration_agreement": f"{self.agree / self.n:.4f} ({images})"}


def choose(
    methods: Sequence[str],
    make: Callable[[str], Path],
    load: Callable[[Path], Speaker],
    source: Path,
    batches: Sequence[Tensor],
) -> Trial:
    """Try methods in turn until one is good enough; the best of those that were tried.

    Args:
        methods: the simplest first.
        make: writes the file of a method.
        load: opens a file.
        source: the float file.
        batches: image batches [B, C, H, W] in 0..1, of the training split: the test images must not choose.
    """
    expected = _answers(load(source), batches)
    tried: list[Trial] = []
    for method in methods:
        path = make(method)
        tried.append(_compare(method, path, expected, _answers(load(path), batches)))
        if tried[-1].agree >= ENOUGH * tried[-1].n:
            break
    return best(tried)


def best(trials: Iterable[Trial]) -> Trial:
    """Most agreement; of equals the smallest difference in probability; of equals again the first."""
    return min(trials, key=lambda trial: (-trial.agree, trial.apart))


def _answers(speaker: Speaker, batches: Sequence[Tensor]) -> Tensor:
    return torch.cat([speaker(batch).pred for batch in batches])


def _compare(method: str, path: Path, expected: Tensor, said: Tensor) -> Trial:
    answer = decide(said)
    # What is not a number is as far off as can be.
    apart = (expected.double().softmax(1) - said.double().softmax(1)).abs().nan_to_num(nan=1.0)
    agree = int(((decide(expected) == answer) & (answer >= 0)).sum())
    return Trial(method=method, path=path, agree=agree, apart=float(apart.mean()), n=len(said))

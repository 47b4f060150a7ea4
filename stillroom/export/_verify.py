"""The gate: an exported file counts only when its answers are those of its network, on real images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stillroom.errors import StillroomError
from stillroom.export._errors import OutputMismatch, PreprocessingMismatch
from stillroom.metrics.measurement import Measurement


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What a comparison of a file's answers with its network's, on N images, has to be for the file to count.

    Attributes:
        figure: the task's measure of agreement, in 0..1. It may carry `max_difference`, the largest difference of
            probabilities or scores.
        gate: least agreement, in 0..1.
        tolerance: greatest `max_difference`, in 0..1. A float file differs by rounding only, so a small one also
            catches a fault that changes no decision; integers round, so theirs is 1.
        cause: what is wrong with the file's preprocessing, where that was found out; see `_diagnosis`.
    """

    figure: Measurement
    gate: float
    tolerance: float = 1.0
    cause: str = ""

    @property
    def agreement(self) -> float:
        """How far the two agree."""
        return float(self.figure.value)  # type: ignore[arg-type]

    @property
    def max_difference(self) -> float | None:
        """How far their probabilities are apart; None where the task has no such number."""
        return self.figure.extra.get("max_difference")

    @property
    def passed(self) -> bool:
        """Whether the file may be used."""
        return self.agreement >= self.gate and (self.max_difference or 0.0) <= self.tolerance

    def figures(self) -> dict[str, Measurement]:
        """`agreement`, and `max_difference` where there is one, for the table of exports."""
        found = {"agreement": self.figure}
        if self.max_difference is not None:
            how = "largest difference in probability or score between file and network, over all images"
            found["max_difference"] = Measurement(value=self.max_difference, n=self.figure.n, how=how)
        return found

    def failure(self, path: Path) -> StillroomError:
        """The error to raise when `passed` is false."""
        agreed, images = f"agreement {self.agreement:.1%}", f"on {self.figure.n} images"
        apart = "" if self.max_difference is None else f"max abs Δp {self.max_difference:.2g}"
        if self.agreement < self.gate:
            problem = f"{agreed} < {self.gate:.1%} {images}" + (f" ({apart})" if apart else "")
        else:
            problem = f"{apart} > {self.tolerance:g} {images} ({agreed})"
        if self.cause:
            return PreprocessingMismatch(problem=problem, cause=self.cause, path=path)
        return OutputMismatch(problem=problem, path=path)


def mark_unverified(path: Path, verification: Verification, companions: Sequence[str] = ()) -> Path:
    """Where the file is: under its own name, or as `NAME.unverified.SUFFIX` when it failed its check.

    The verdict is in the name, because files are copied without the reports that stand beside them.

    Args:
        path: the file.
        verification: the comparison with its network.
        companions: endings of the files beside it that it needs; they are renamed with it.
    """
    if verification.passed:
        return path
    for suffix in (*companions, path.suffix):  # the file itself last: under its new name it finds all it needs
        os.replace(path.with_suffix(suffix), path.with_suffix(f".unverified{suffix}"))
    return path.with_suffix(f".unverified{path.suffix}")

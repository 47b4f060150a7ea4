"""The gate: an exported file counts only when it answers as its network does, on real images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from stillroom.errors import Failure
from stillroom.metrics._figure import Figure, proportion
from stillroom.metrics.metric import decide


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What a comparison of N pairs of answers found.

    Attributes:
        agree: images on which both name the same class.
        right: images on which the file names the label's class.
        n: images compared.
        max_difference: largest |p_network - p_file| over images and classes, in 0..1.
        gate: least agreement, in 0..1.
        tolerance: greatest `max_difference`, in 0..1.
    """

    agree: int
    right: int
    n: int
    max_difference: float
    gate: float
    tolerance: float

    @property
    def agreement(self) -> float:
        """Share of images on which both name the same class."""
        return self.agree / self.n

    @property
    def accuracy(self) -> float:
        """Share of images on which the file is right."""
        return self.right / self.n

    @property
    def passed(self) -> bool:
        """Whether the file may be used."""
        return self.agreement >= self.gate and self.max_difference <= self.tolerance

    def figures(self) -> dict[str, Figure]:
        """`agreement`, `accuracy`, `max_difference` and `verified`, for the table of exports."""
        gate = f"agreement >= {self.gate:.1%} and largest difference in probability <= {self.tolerance:g}"
        difference = "largest difference in probability between file and network, over all images and classes"
        return {
            "agreement": proportion(
                self.agree, self.n, how="share of images where file and network name the same class"
            ),
            "accuracy": proportion(self.right, self.n, how="share of images where the file, run, names the label"),
            "max_difference": Figure(value=self.max_difference, n=self.n, how=difference),
            "verified": Figure(value=self.passed, n=self.n, how=gate),
        }

    def failure(self, path: Path) -> Failure:
        """The error to raise when `passed` is false."""
        agreed, apart = f"agreement {self.agreement:.1%}", f"max abs Δp {self.max_difference:.2g}"
        if self.agreement < self.gate:
            problem = f"{agreed} < {self.gate:.1%} on {self.n} images ({apart})"
        else:
            problem = f"{apart} > {self.tolerance:g} on {self.n} images ({agreed})"
        return Failure("SR-X701", problem=problem, path=path)


def verify(
    reference: Tensor, candidate: Tensor, target: Tensor, *, gate: float, tolerance: float = 1.0
) -> Verification:
    """Compare an exported file's answers with its network's on the same images.

    Args:
        reference: [N, K] logits of the network.
        candidate: [N, K] logits of the file.
        target: [N] labels.
        gate: least share of images on which both must name the same class; integers round, so 1 is too much for 8 bits.
        tolerance: greatest difference in probability. A float file differs by rounding only, so 0.01 also catches a
            fault that changes no decision; for 8 bits leave it at 1, for single images do move.

    Raises:
        ValueError: the shapes do not match, or there are no images.
    """
    if reference.shape != candidate.shape or len(reference) != len(target) or not len(target):
        shapes = f"{list(reference.shape)}, {list(candidate.shape)}, {list(target.shape)}"
        raise ValueError(f"can't compare logits and labels of shapes {shapes}")
    expected, said = decide(reference), decide(candidate)
    # Doubles, so that the difference is the file's and not softmax's; what is not a number is as far off as can be.
    apart = (reference.double().softmax(1) - candidate.double().softmax(1)).abs().nan_to_num(nan=1.0)
    return Verification(
        agree=int(((expected == said) & (said >= 0)).sum()),
        right=int((said == target).sum()),
        n=len(target),
        max_difference=float(apart.max()),
        gate=gate,
        tolerance=tolerance,
    )


def settle(path: Path, verification: Verification) -> Path:
    """The file under the name it has earned: its own, or `NAME.unverified.SUFFIX` when it failed.

    The verdict is in the name, because files are copied without the reports that stand beside them.
    """
    if verification.passed:
        return path
    renamed = path.with_suffix(f".unverified{path.suffix}")
    os.replace(path, renamed)
    return renamed

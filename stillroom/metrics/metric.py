"""What a metric is: what it has seen grows batch by batch, adds up over processes, and becomes figures at the end."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from stillroom.metrics.measurement import Measurement
from stillroom.types import Batch, Output, OutputKind, TargetKind

RESERVED = frozenset(
    (
        *("target", "runtime", "bits", "path", "verified", "gate", "stage", "what", "front", "pcr", "agreement"),
        *("max_difference", "bytes", "parameters", "macs", "latency_ms", "latency_p95_ms", "throughput", "load_ms"),
        *("peak_mb", "energy_j"),
    )
)
"""Names in a row of `metrics.json` that no further metric may give its figures."""


class Metric:
    """Base of all metrics. A subclass names its counts and rows, fills them in `update`, and divides in `compute`.

    Everything a metric knows is in its counts, which only ever grow by addition, and its rows, of which there is one or
    more an image. So a whole equals its pieces in any order, and what several processes have may be put together:
    `compute` must not depend on the order of the rows.

    Args:
        classes: names of the K classes, in label order.
        rows: names of what is kept of each image.
        counts: name -> shape of a count; all start as zeros, int64 on the CPU.

    Attributes:
        output_kind: the kind of predictions that it measures.
        target_kind: the kind of labels that it reads; None: none, for it compares with a reference.
    """

    output_kind: ClassVar[OutputKind] = "classes"
    target_kind: ClassVar[TargetKind | None] = "labels"

    def __init__(self, classes: tuple[str, ...], *, rows: tuple[str, ...] = (), **counts: tuple[int, ...]):
        self.classes = classes
        self._counts = {name: torch.zeros(shape, dtype=torch.int64) for name, shape in counts.items()}
        self._rows: dict[str, list[Tensor]] = {name: [] for name in rows}

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Count one batch.

        Args:
            output: the judged network's answer, see `Task.answer`.
            batch: the images and what is known of them.
            reference: the answer of the one it is compared with, when there is one.
        """
        raise NotImplementedError

    def compute(self) -> dict[str, Measurement]:
        """Name -> figure; empty when nothing was counted that the metric could speak about."""
        raise NotImplementedError

    def value(self) -> float:
        """The first figure's value, for those who need no interval; 0 when there is none."""
        figures = self.compute()
        found = next(iter(figures.values())).value if figures else 0.0
        return float(found) if isinstance(found, (int, float)) else 0.0

    def state(self) -> dict[str, Tensor]:
        """What was seen. Counts of two processes may be added, rows joined along their first axis."""
        return {name: count.clone() for name, count in self._counts.items()} | {
            name: torch.cat(parts) for name, parts in self._rows.items() if parts
        }

    def merge(self, state: dict[str, Tensor]) -> None:
        """Take in what another process, or the same for another part of the data, has seen."""
        self._add(**{name: value for name, value in state.items() if name in self._counts})
        self._keep(**{name: value for name, value in state.items() if name in self._rows})

    def _add(self, **counts: Tensor) -> None:
        for name, count in counts.items():
            self._counts[name] += count.to("cpu", torch.int64)

    def _keep(self, **rows: Tensor) -> None:
        for name, row in rows.items():
            self._rows[name].append(row.detach().to("cpu").clone())

    def _kept(self, name: str) -> Tensor | None:
        """All rows of that name; None when there are none."""
        parts = self._rows[name]
        return torch.cat(parts) if parts else None


def apart(ours: Tensor, theirs: Tensor) -> Tensor:
    """How far two sides' probabilities differ, |softmax(ours) - softmax(theirs)|: [B, K, ...] -> the same, in 0..1.

    In doubles, so that the difference is the answers' and not softmax's; what is no number is as far off as can be.
    """
    expected = theirs.to(ours.device).double().softmax(1)
    return (ours.double().softmax(1) - expected).abs().nan_to_num(nan=1.0)


def decide(pred: Tensor) -> Tensor:
    """The class each row stands for: the greatest logit, or -1 where a logit is not finite.

    A network that says "not a number" has said nothing; argmax would still name a class, which may even be right.

    Args:
        pred: [B, K, ...] logits.

    Returns:
        [B, ...] int64 in -1..K-1.
    """
    return pred.argmax(1).masked_fill(~pred.isfinite().all(1), -1)

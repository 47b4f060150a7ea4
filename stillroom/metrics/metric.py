"""The base of all metrics: batches are added, the states of processes are merged, and the end is a set of figures."""

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
        *("peak_mb", "energy_j", "gain"),
    )
)
"""Names in a row of `metrics.json` that the figures of a recipe's own metrics can't have."""


class Metric:
    """A subclass names its counts and rows, adds to them in `update`, and computes figures from them in `compute`.

    The state consists of counts, which are only ever added to, and rows, one or more per image. So a data set may be
    split over batches and processes in any way and order, and `compute` must not depend on the order of the rows.

    Args:
        classes: names of the K classes, in label order.
        rows: names of the tensors that are kept for each image.
        counts: name -> shape of a count; all start as zeros, int64 on the CPU.

    Attributes:
        output_kind: the kind of predictions that the metric takes.
        target_kind: the kind of labels that it reads; None where it compares with a reference instead.
    """

    output_kind: ClassVar[OutputKind] = "classes"
    target_kind: ClassVar[TargetKind | None] = "labels"

    def __init__(self, classes: tuple[str, ...], *, rows: tuple[str, ...] = (), **counts: tuple[int, ...]):
        self.classes = classes
        self._counts = {name: torch.zeros(shape, dtype=torch.int64) for name, shape in counts.items()}
        self._rows: dict[str, list[Tensor]] = {name: [] for name in rows}

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Add one batch.

        Args:
            output: the network's predictions, see `Task.postprocess`.
            batch: the images and their targets.
            reference: the predictions that `output` is compared with, if there are any.
        """
        raise NotImplementedError

    def compute(self) -> dict[str, Measurement]:
        """Name -> figure; empty where nothing was added that the metric applies to."""
        raise NotImplementedError

    def value(self) -> float:
        """The value of the first figure, where possible without its interval; 0 where there is none."""
        figures = self.compute()
        found = next(iter(figures.values())).value if figures else 0.0
        return float(found) if isinstance(found, (int, float)) else 0.0

    def paired(self, other: Metric) -> Measurement | None:
        """The first figure less that of `other`, a metric of the same class that saw the same images, with its test.

        None where the metric has no paired test; see `metrics._paired`.
        """
        return None

    def state(self) -> dict[str, Tensor]:
        """Counts and rows. Those of two processes are merged by adding counts and concatenating rows."""
        return {name: count.clone() for name, count in self._counts.items()} | {
            name: torch.cat(parts) for name, parts in self._rows.items() if parts
        }

    def merge(self, state: dict[str, Tensor]) -> None:
        """Add the state of another process, or of another part of the data."""
        self._add_counts(**{name: value for name, value in state.items() if name in self._counts})
        self._add_rows(**{name: value for name, value in state.items() if name in self._rows})

    def _add_counts(self, **counts: Tensor) -> None:
        for name, count in counts.items():
            self._counts[name] += count.to("cpu", torch.int64)

    def _add_rows(self, **rows: Tensor) -> None:
        for name, row in rows.items():
            self._rows[name].append(row.detach().to("cpu").clone())

    def _by_key(self, name: str) -> Tensor:
        """All rows of that name in the order of the images' keys, which are rows called "keys"."""
        return torch.cat(self._rows[name])[torch.cat(self._rows["keys"]).argsort(stable=True)]

    def _all_rows(self, name: str) -> Tensor | None:
        """All rows of that name; None where there are none."""
        parts = self._rows[name]
        return torch.cat(parts) if parts else None


def probability_difference(logits: Tensor, reference: Tensor) -> Tensor:
    """|softmax(logits) - softmax(reference)|, [B, K, ...] -> the same shape, in 0..1.

    In float64, so that rounding in softmax does not count. A difference that is not finite counts as 1.
    """
    expected = reference.to(logits.device).double().softmax(1)
    return (logits.double().softmax(1) - expected).abs().nan_to_num(nan=1.0)


def predicted_class(pred: Tensor) -> Tensor:
    """The class of the largest logit, or -1 where a logit is not finite.

    argmax alone would return a class for NaN, which could count as correct.

    Args:
        pred: logits [B, K, ...].

    Returns:
        [B, ...] int64 in -1..K-1.
    """
    return pred.argmax(1).masked_fill(~pred.isfinite().all(1), -1)

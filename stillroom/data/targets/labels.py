"""Targets of classification: one class per image."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from stillroom.data.errors import LabelOutOfRange
from stillroom.data.finding import Finding
from stillroom.data.geometry import Geometry
from stillroom.data.sources.source import Source
from stillroom.data.targets.target import Planes, Target
from stillroom.types import IntArray, TargetKind

UNLABELLED = -1


class LabelTargets:
    """[B] int64; -1 for unlabelled images."""

    kind: ClassVar[TargetKind] = "labels"
    stretch: ClassVar[bool] = False
    padding: ClassVar[Literal["mirror", "grey"]] = "mirror"
    planes: ClassVar[int] = 0
    noun: ClassVar[str] = "images"
    min_classes: ClassVar[int] = 2

    def __init__(self, source: Source):
        self._source = source

    def read_planes(self, item: int, *, shape: tuple[int, int], size: int) -> Planes:
        """No planes."""
        return np.empty((0, size, size), dtype=np.uint8)

    def take(self, items: IntArray, planes: Planes) -> Target:
        """The labels."""
        return torch.from_numpy(self._source.labels[items])

    def transform(self, target: Target, geometry: Geometry) -> Target:
        """The same target: a label has no position in the image."""
        return target

    def counts(self, items: IntArray) -> IntArray:
        """Images per class."""
        labels, classes = self._source.labels[items], len(self._source.classes)
        return np.bincount(labels[(labels >= 0) & (labels < classes)], minlength=classes)

    def unlabelled(self, items: IntArray) -> NDArray[np.bool_]:
        """Images with the label -1."""
        result: NDArray[np.bool_] = self._source.labels[items] == UNLABELLED
        return result

    def digest(self, items: IntArray, *, sampled: Collection[int]) -> bytes:
        """Empty: the fingerprint contains the labels already."""
        return b""

    def target_findings(self) -> Iterator[Finding]:
        """Labels that are neither a class nor -1."""
        labels, classes = self._source.labels, len(self._source.classes)
        wrong = np.flatnonzero((labels < UNLABELLED) | (labels >= classes))
        if len(wrong):
            first = int(wrong[0])
            values = {"label": int(labels[first]), "count": len(wrong), "highest": classes - 1}
            yield Finding(severity="error", failure=LabelOutOfRange(path=self._source.name(first), **values))

    def size_findings(self, sizes: Mapping[int, tuple[int, int]]) -> Iterator[Finding]:
        """None: a label fits any size."""
        yield from ()

"""A class for each image."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import ClassVar, Literal

import numpy as np
import torch

from stillroom.data.finding import Finding
from stillroom.data.geometry import Geometry
from stillroom.data.sources.source import Source
from stillroom.data.targets.target import Numbers, Planes, Target
from stillroom.errors import Failure
from stillroom.types import Kind


class LabelTargets:
    """[B] int64."""

    kind: ClassVar[Kind] = "labels"
    stretch: ClassVar[bool] = False
    outside: ClassVar[Literal["mirror", "grey"]] = "mirror"
    planes: ClassVar[int] = 0
    noun: ClassVar[str] = "images"
    least: ClassVar[int] = 2

    def __init__(self, source: Source):
        self._source = source

    def draw(self, item: int, *, shape: tuple[int, int], size: int) -> Planes:
        """None."""
        return np.empty((0, size, size), dtype=np.uint8)

    def take(self, items: Numbers, planes: Planes) -> Target:
        """The labels."""
        return torch.from_numpy(self._source.labels[items])

    def moved(self, target: Target, geometry: Geometry) -> Target:
        """The same: a class does not lie anywhere in the image."""
        return target

    def counts(self, items: Numbers) -> Numbers:
        """Images of each class."""
        labels, classes = self._source.labels[items], len(self._source.classes)
        return np.bincount(labels[(labels >= 0) & (labels < classes)], minlength=classes)

    def digest(self, items: Numbers, *, looked_at: Collection[int]) -> bytes:
        """Nothing: the fingerprint holds the labels already."""
        return b""

    def labels_wrong(self) -> Iterator[Finding]:
        """Labels that are no class."""
        labels, classes = self._source.labels, len(self._source.classes)
        wrong = np.flatnonzero((labels < 0) | (labels >= classes))
        if len(wrong):
            first = int(wrong[0])
            values = {"label": int(labels[first]), "count": len(wrong), "highest": classes - 1}
            yield Finding(severity="error", failure=Failure("SR-D113", path=self._source.name(first), **values))

    def sizes_wrong(self, shapes: Mapping[int, tuple[int, int]]) -> Iterator[Finding]:
        """Nothing: a label goes with any size."""
        yield from ()

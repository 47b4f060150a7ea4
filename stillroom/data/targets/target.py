"""The interface of targets: the annotations of a source in the form in which they go into batches.

There is one class per `TargetKind`. Splits, loader, inspection and fingerprint use the methods below and do not
distinguish the kinds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stillroom.data.finding import Finding
from stillroom.data.geometry import Geometry
from stillroom.types import IntArray, TargetKind

Target = Tensor | dict[str, Tensor]
Planes = NDArray[np.uint8]


class Targets(Protocol):
    """The annotations of the items of one source.

    Attributes:
        kind: of the targets.
        stretch: whether images are stretched to a square instead of cropped, because positions in them matter.
        padding: what fills the area beyond the edge of an augmented image: its mirror image, or grey.
        planes: number of planes [size, size] uint8 that are stored with each image, in addition to its channels.
        noun: what `counts` counts.
        min_classes: smallest number of classes that makes training meaningful.
    """

    kind: ClassVar[TargetKind]
    stretch: ClassVar[bool]
    padding: ClassVar[Literal["mirror", "grey"]]
    planes: ClassVar[int]
    noun: ClassVar[str]
    min_classes: ClassVar[int]

    def read_planes(self, item: int, *, shape: tuple[int, int], size: int) -> Planes:
        """An item's planes, [planes, size, size].

        Args:
            item: its index.
            shape: height and width of the item's decoded image.
            size: that the image is resized to.

        Raises:
            StillroomError: the item can't be used.
        """
        ...

    def take(self, items: IntArray, planes: Planes) -> Target:
        """The target of a batch.

        Args:
            items: [B].
            planes: [B, planes, size, size], from `read_planes`.
        """
        ...

    def transform(self, target: Target, geometry: Geometry) -> Target:
        """The target after the images were transformed; the argument is not modified."""
        ...

    def counts(self, items: IntArray) -> IntArray:
        """How many of each class, [K]."""
        ...

    def unlabelled(self, items: IntArray) -> NDArray[np.bool_]:
        """[B] whether each item is unlabelled."""
        ...

    def digest(self, items: IntArray, *, sampled: Collection[int]) -> bytes:
        """A hash of the annotations of the items, for the fingerprint; files are read for sampled items only."""
        ...

    def target_findings(self) -> Iterator[Finding]:
        """Problems that can be found without opening an image."""
        ...

    def size_findings(self, sizes: Mapping[int, tuple[int, int]]) -> Iterator[Finding]:
        """Annotations that do not fit the images' height and width."""
        ...

"""The contract of targets: what a source knows of its images beside their pixels, as it goes into batches.

There is one class for each `Kind`, and nobody else treats the kinds apart: splits, loader, inspection and fingerprint
ask the methods below.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stillroom.data.finding import Finding
from stillroom.data.geometry import Geometry
from stillroom.types import TargetKind

Target = Tensor | dict[str, Tensor]
Numbers = NDArray[np.int64]
Planes = NDArray[np.uint8]


class Targets(Protocol):
    """What is known of the items of one source.

    Attributes:
        kind: of the targets.
        stretch: whether images are stretched to the square rather than cropped, because places in them matter.
        outside: what moves into an augmented image from outside: the image mirrored at its edge, or grey.
        planes: how many planes [size, size] uint8 are kept with each image, beside its channels.
        noun: what `counts` counts.
        least: fewest classes that are worth a training.
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
            item: its number.
            shape: height and width of the item's decoded image.
            size: that it is brought to.

        Raises:
            StillroomError: the item can't be used.
        """
        ...

    def take(self, items: Numbers, planes: Planes) -> Target:
        """The target of a batch.

        Args:
            items: [B].
            planes: [B, planes, size, size], as drawn.
        """
        ...

    def transform(self, target: Target, geometry: Geometry) -> Target:
        """The target of the same images after they were moved. What `take` gave is left as it was."""
        ...

    def counts(self, items: Numbers) -> Numbers:
        """How many of each class, [K]."""
        ...

    def unlabelled(self, items: Numbers) -> NDArray[np.bool_]:
        """Of which items nothing is known, [B]."""
        ...

    def digest(self, items: Numbers, *, sampled: Collection[int]) -> bytes:
        """Stands for all that is known of the items, for the fingerprint; files only of those that were looked at."""
        ...

    def target_findings(self) -> Iterator[Finding]:
        """What can be found wrong without opening an image."""
        ...

    def size_findings(self, shapes: Mapping[int, tuple[int, int]]) -> Iterator[Finding]:
        """What does not go together with the images' height and width."""
        ...

"""Targets of detection: boxes around objects."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from stillroom.data.errors import ImageSizeMismatch, ImagesWithoutBoxes
from stillroom.data.finding import Finding, examples, warning
from stillroom.data.geometry import MIN_VISIBLE, Geometry, transform_boxes
from stillroom.data.sources.source import BoxAnnotations, Source
from stillroom.data.targets.target import Planes, Target
from stillroom.data.targets.usable_boxes import FAULTS, UsableBoxes, usable_boxes
from stillroom.errors import StillroomError
from stillroom.types import IntArray, TargetKind


class BoxTargets:
    """Padded boxes, see `stillroom.types.TargetKind`; M is at least 1, so that no reduction is over an empty axis.

    Left out in every split: boxes without width or height, boxes outside the image, boxes of no known class, and exact
    duplicates. Boxes that reach beyond the image are clipped. `target_findings` counts all of these.
    """

    kind: ClassVar[TargetKind] = "boxes"
    stretch: ClassVar[bool] = True
    padding: ClassVar[Literal["mirror", "grey"]] = "grey"
    planes: ClassVar[int] = 0
    noun: ClassVar[str] = "boxes"
    min_classes: ClassVar[int] = 1

    def __init__(self, source: Source):
        self._source = source
        self._checked: dict[int, tuple[BoxAnnotations, UsableBoxes]] = {}

    def read_planes(self, item: int, *, shape: tuple[int, int], size: int) -> Planes:
        """No planes."""
        return np.empty((0, size, size), dtype=np.uint8)

    def take(self, items: IntArray, planes: Planes) -> Target:
        """The boxes, padded to the largest number per image."""
        found = [self._boxes(item) for item in items.tolist()]
        most = max((len(usable.labels) for _, usable in found), default=0) or 1
        boxes = np.zeros((len(found), most, 4), dtype=np.float32)
        labels = np.full((len(found), most), -1, dtype=np.int64)
        crowd = np.zeros((len(found), most), dtype=bool)
        for row, (_, usable) in enumerate(found):
            count = len(usable.labels)
            boxes[row, :count], labels[row, :count], crowd[row, :count] = usable.boxes, usable.labels, usable.crowd
        return {
            "boxes": torch.from_numpy(boxes),
            "labels": torch.from_numpy(labels),
            "crowd": torch.from_numpy(crowd),
            "size": torch.tensor([annotated.size for annotated, _ in found], dtype=torch.int64).reshape(-1, 2),
            "known": torch.tensor([annotated.known for annotated, _ in found], dtype=torch.bool),
        }

    def transform(self, target: Target, geometry: Geometry) -> Target:
        """The transformed boxes; a box with less than a quarter of its area in the image is removed."""
        assert isinstance(target, dict)
        if not (geometry.shifts or geometry.resamples):
            return target
        boxes, visible = transform_boxes(target["boxes"], geometry)
        kept = (target["labels"] >= 0) & (visible >= MIN_VISIBLE)
        return target | {
            "boxes": boxes.where(kept[..., None], torch.zeros(())),
            "labels": target["labels"].masked_fill(~kept, -1),
            "crowd": target["crowd"] & kept,
        }

    def counts(self, items: IntArray) -> IntArray:
        """Boxes per class, without those around groups."""
        labels = [usable.labels[~usable.crowd] for _, usable in self._readable(items)]
        return np.bincount(np.concatenate([*labels, np.empty(0, np.int64)]), minlength=len(self._source.classes))

    def unlabelled(self, items: IntArray) -> NDArray[np.bool_]:
        """The unannotated images, which are the last ones of the source."""
        return items >= len(self._source.labels) - getattr(self._source, "num_unlabelled", 0)

    def digest(self, items: IntArray, *, sampled: Collection[int]) -> bytes:
        """Every usable box of every item."""
        digest = hashlib.sha256()
        for annotated, usable in self._readable(items):
            digest.update(repr((len(usable.labels), annotated.size, annotated.known)).encode())
            digest.update(usable.boxes.tobytes() + usable.labels.tobytes() + usable.crowd.tobytes())
        return digest.digest()

    def target_findings(self) -> Iterator[Finding]:
        """Boxes that are left out or clipped, and images without boxes."""
        names: dict[str, list[str]] = {fault: [] for fault in FAULTS}
        counts = np.zeros(len(FAULTS), dtype=int)
        empty = []
        for item in range(len(self._source.labels)):
            try:
                annotated, usable = self._boxes(item)
            except StillroomError:
                continue  # an unreadable image, which is reported as such
            counts += usable.faults.sum(axis=0)
            for fault, present in zip(FAULTS, usable.faults.T, strict=True):
                names[fault] += [self._source.name(item)] if present.any() else []
            empty += [self._source.name(item)] if annotated.known and not len(usable.labels) else []
        for (fault, kind), count in zip(FAULTS.items(), counts.tolist(), strict=True):
            if count:
                yield warning(kind(count=count, images=len(names[fault]), examples=examples(names[fault])))
        if empty:
            yield warning(ImagesWithoutBoxes(count=len(empty), examples=examples(empty)))

    def size_findings(self, sizes: Mapping[int, tuple[int, int]]) -> Iterator[Finding]:
        """Images whose size differs from the declared one."""
        wrong = []
        for item, (height, width) in sorted(sizes.items()):
            declared = self._boxes(item)[0].size
            if declared != (height, width):
                wrong.append(f"{self._source.name(item)}: declared {declared[1]}×{declared[0]}, is {width}×{height}")
        if wrong:
            yield warning(ImageSizeMismatch(count=len(wrong), examples=examples(wrong)))

    def _boxes(self, item: int) -> tuple[BoxAnnotations, UsableBoxes]:
        if item not in self._checked:
            annotated = self._source.boxes(item)  # type: ignore[attr-defined]
            self._checked[item] = annotated, usable_boxes(annotated, len(self._source.classes))
        return self._checked[item]

    def _readable(self, items: IntArray) -> Iterator[tuple[BoxAnnotations, UsableBoxes]]:
        for item in items.tolist():
            try:
                yield self._boxes(item)
            except StillroomError:
                continue

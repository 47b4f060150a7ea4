"""Boxes around objects."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from stillroom.data.errors import (
    BoxesOfUnknownClass,
    BoxesOutsideImage,
    DegenerateBoxes,
    DuplicateBoxes,
    ImageSizeMismatch,
    ImagesWithoutBoxes,
)
from stillroom.data.finding import Finding, examples, warning
from stillroom.data.geometry import MIN_VISIBLE, Geometry, transform_boxes
from stillroom.data.sources.source import BoxAnnotations, Source
from stillroom.data.targets.target import Numbers, Planes, Target
from stillroom.errors import StillroomError
from stillroom.types import TargetKind

BEYOND = 1.0  # pixels: rounding puts boxes that far outside in most data sets, and nobody needs to hear of it
FAULTS = {
    "degenerate": DegenerateBoxes,
    "outside": BoxesOutsideImage,
    "duplicate": DuplicateBoxes,
    "unknown": BoxesOfUnknownClass,
}


@dataclass(frozen=True, kw_only=True)
class UsableBoxes:
    """The boxes of an image that can be used, cut at its edges, and what was wrong with the others.

    Attributes:
        shares: [M, 4] float32 in shares of width and height.
        labels: [M].
        crowd: [M].
        faults: [N, 4] bool for all N noted boxes, in the order of `FAULTS`.
    """

    shares: NDArray[np.float32]
    labels: Numbers
    crowd: NDArray[np.bool_]
    faults: NDArray[np.bool_]


class BoxTargets:
    """Padded boxes, see `stillroom.types.TargetKind`; padded to one at least, so that no reduction is over nothing.

    Left out, in every split: boxes without width or height, wholly outside, of no known class, and the second of two
    with the same class and place. What reaches beyond the image is cut. `labels_wrong` counts all of it.
    """

    kind: ClassVar[TargetKind] = "boxes"
    stretch: ClassVar[bool] = True
    padding: ClassVar[Literal["mirror", "grey"]] = "grey"
    planes: ClassVar[int] = 0
    noun: ClassVar[str] = "boxes"
    min_classes: ClassVar[int] = 1

    def __init__(self, source: Source):
        self._source = source
        self._sound: dict[int, tuple[BoxAnnotations, UsableBoxes]] = {}

    def read_planes(self, item: int, *, shape: tuple[int, int], size: int) -> Planes:
        """None."""
        return np.empty((0, size, size), dtype=np.uint8)

    def take(self, items: Numbers, planes: Planes) -> Target:
        """The boxes, padded to the image that has most."""
        found = [self._of(item) for item in items.tolist()]
        most = max((len(good.labels) for _, good in found), default=0) or 1
        boxes = np.zeros((len(found), most, 4), dtype=np.float32)
        labels = np.full((len(found), most), -1, dtype=np.int64)
        crowd = np.zeros((len(found), most), dtype=bool)
        for row, (_, good) in enumerate(found):
            count = len(good.labels)
            boxes[row, :count], labels[row, :count], crowd[row, :count] = good.shares, good.labels, good.crowd
        return {
            "boxes": torch.from_numpy(boxes),
            "labels": torch.from_numpy(labels),
            "crowd": torch.from_numpy(crowd),
            "size": torch.tensor([noted.size for noted, _ in found], dtype=torch.int64).reshape(-1, 2),
            "known": torch.tensor([noted.known for noted, _ in found], dtype=torch.bool),
        }

    def transform(self, target: Target, geometry: Geometry) -> Target:
        """Boxes that follow the pixels; one of which less than a quarter is still in the image is no box any more."""
        assert isinstance(target, dict)
        if not (geometry.shifts or geometry.resamples):
            return target
        boxes, visible = transform_boxes(target["boxes"], geometry)
        stays = (target["labels"] >= 0) & (visible >= MIN_VISIBLE)
        return target | {
            "boxes": boxes.where(stays[..., None], torch.zeros(())),
            "labels": target["labels"].masked_fill(~stays, -1),
            "crowd": target["crowd"] & stays,
        }

    def counts(self, items: Numbers) -> Numbers:
        """Boxes of each class, those around groups left out."""
        labels = [good.labels[~good.crowd] for _, good in self._readable(items)]
        every = np.concatenate([*labels, np.empty(0, dtype=np.int64)])
        return np.bincount(every, minlength=len(self._source.classes))

    def unlabelled(self, items: Numbers) -> NDArray[np.bool_]:
        """The further ones, which nobody has looked at."""
        return items >= len(self._source.labels) - getattr(self._source, "num_unlabelled", 0)

    def digest(self, items: Numbers, *, sampled: Collection[int]) -> bytes:
        """Every box of every item, as it is used."""
        digest = hashlib.sha256()
        for noted, good in self._readable(items):
            digest.update(repr((len(good.labels), noted.size, noted.known)).encode())
            digest.update(good.shares.tobytes() + good.labels.tobytes() + good.crowd.tobytes())
        return digest.digest()

    def target_findings(self) -> Iterator[Finding]:
        """Boxes that are left out or cut, and images without any."""
        names: dict[str, list[str]] = {fault: [] for fault in FAULTS}
        counts = np.zeros(len(FAULTS), dtype=int)
        empty = []
        for item in range(len(self._source.labels)):
            try:
                noted, good = self._of(item)
            except StillroomError:
                continue  # an unreadable image, which is told as such
            counts += good.faults.sum(axis=0)
            for fault, there in zip(FAULTS, good.faults.T, strict=True):
                names[fault] += [self._source.name(item)] if there.any() else []
            empty += [self._source.name(item)] if noted.known and not len(good.labels) else []
        for (fault, kind), count in zip(FAULTS.items(), counts.tolist(), strict=True):
            if count:
                yield warning(kind(count=count, images=len(names[fault]), examples=examples(names[fault])))
        if empty:
            yield warning(ImagesWithoutBoxes(count=len(empty), examples=examples(empty)))

    def size_findings(self, shapes: Mapping[int, tuple[int, int]]) -> Iterator[Finding]:
        """Images of another size than the annotations declare."""
        wrong = []
        for item, (height, width) in sorted(shapes.items()):
            said = self._of(item)[0].size
            if said != (height, width):
                wrong.append(f"{self._source.name(item)}: declared {said[1]}×{said[0]}, is {width}×{height}")
        if wrong:
            yield warning(ImageSizeMismatch(count=len(wrong), examples=examples(wrong)))

    def _of(self, item: int) -> tuple[BoxAnnotations, UsableBoxes]:
        if item not in self._sound:
            noted = self._source.boxes(item)  # type: ignore[attr-defined]
            self._sound[item] = noted, usable_boxes(noted, len(self._source.classes))
        return self._sound[item]

    def _readable(self, items: Numbers) -> Iterator[tuple[BoxAnnotations, UsableBoxes]]:
        for item in items.tolist():
            try:
                yield self._of(item)
            except StillroomError:
                continue


def usable_boxes(noted: BoxAnnotations, classes: int) -> UsableBoxes:
    """Separates the boxes that can be used from those that can't."""
    height, width = noted.size
    edge = np.array([width, height, width, height], dtype=np.float64)
    boxes = np.nan_to_num(noted.boxes)
    cut = np.clip(boxes, 0, edge)
    shares = (cut / edge).astype(np.float32)
    away = np.abs(boxes - cut).max(axis=1, initial=0)
    flat = ~(shares[:, 2:] > shares[:, :2]).all(axis=1)  # as it will be used: float32 has no room for any width
    degenerate = ~np.isfinite(noted.boxes).all(axis=1) | ~(boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    degenerate |= flat & (away == 0)
    outside = ~degenerate & (flat | (away > BEYOND))
    unknown = (noted.labels < 0) | (noted.labels >= classes)
    kept = ~(degenerate | flat | unknown)
    duplicate = np.zeros(len(boxes), dtype=bool)
    seen = set()
    for row in np.flatnonzero(kept).tolist():
        what = (int(noted.labels[row]), bool(noted.crowd[row]), cut[row].tobytes())
        duplicate[row] = what in seen
        seen.add(what)
    kept &= ~duplicate
    return UsableBoxes(
        shares=shares[kept],
        labels=noted.labels[kept],
        crowd=noted.crowd[kept],
        faults=np.stack([degenerate, outside, duplicate, unknown], axis=1),
    )

"""A class for each pixel."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import grid_sample

from stillroom.data.decode import decode_mask
from stillroom.data.errors import InvalidMask, MaskSizeMismatch, UnknownMaskValues, VoidMasks
from stillroom.data.finding import Finding, examples, warning
from stillroom.data.geometry import Geometry, reflect_index
from stillroom.data.sources.source import Source, content_hash
from stillroom.data.targets.target import Numbers, Planes, Target
from stillroom.data.threads import thread_map
from stillroom.errors import SecurityError, StillroomError
from stillroom.types import TargetKind

VOID, STORED_VOID = -1, 255


@dataclass(frozen=True, kw_only=True)
class MaskSummary:
    """What was seen in a mask file.

    Attributes:
        shape: height and width.
        found: the stored numbers that occur.
    """

    shape: tuple[int, int]
    found: Numbers


class MaskTargets:
    """[B, H, W] int64; void is -1, and so is every number that is no class.

    A mask may be smaller or larger than its image if it has the same aspect, to a pixel: both are stretched to the same
    square, the mask by taking the nearest pixel. With another aspect it can't be the mask of that image, which then
    counts as unreadable.
    """

    kind: ClassVar[TargetKind] = "masks"
    stretch: ClassVar[bool] = True
    padding: ClassVar[Literal["mirror", "grey"]] = "mirror"
    planes: ClassVar[int] = 1
    noun: ClassVar[str] = "images"
    min_classes: ClassVar[int] = 2

    def __init__(self, source: Source):
        self._source = source
        self._classes = len(source.classes)
        self._values = _values(source)
        stored = np.where(self._values < 0, STORED_VOID, self._values)
        self._stored: NDArray[np.uint8] = stored.astype(np.uint8)
        self._seen: dict[int, MaskSummary | StillroomError] = {}

    def read_planes(self, item: int, *, shape: tuple[int, int], size: int) -> Planes:
        """The mask [1, size, size], classes as numbers and void as 255.

        Raises:
            StillroomError: SR-D122 it has another aspect than the image or is no mask, SR-D102 .. SR-D106.
        """
        mask = self._read(item)
        if not _same_aspect(mask.shape, shape):
            raise self._mismatch(item, mask.shape, shape)
        rows, columns = (_nearest(side, size) for side in mask.shape)
        return self._stored[mask[rows][:, columns]][None]

    def take(self, items: Numbers, planes: Planes) -> Target:
        """The masks."""
        mask = planes[:, 0].astype(np.int64)
        mask[planes[:, 0] == STORED_VOID] = VOID
        return torch.from_numpy(mask)

    def transform(self, target: Target, geometry: Geometry) -> Target:
        """Masks that follow the pixels: after zoom and rotation the nearest one counts."""
        assert isinstance(target, torch.Tensor)
        if not (geometry.shifts or geometry.resamples):
            return target
        masks = target.numpy()
        if geometry.shifts:
            rows = reflect_index(geometry.rows(), geometry.height)
            columns = geometry.unflip_columns(reflect_index(geometry.columns(), geometry.width))
            masks = np.take_along_axis(np.take_along_axis(masks, rows[:, :, None], 1), columns[:, None, :], 2)
        if not geometry.resamples:
            return torch.from_numpy(masks)
        grid, result = geometry.grid(), torch.empty(masks.shape, dtype=torch.int64)
        source = torch.from_numpy(masks).float()[:, None]  # classes are below 255: whole numbers that floats hold
        for i in range(len(masks)):  # one by one, as the images are
            one = slice(i, i + 1)
            seen = grid_sample(source[one], grid[one], mode="nearest", padding_mode="reflection", align_corners=False)
            result[i] = seen[0, 0].long()
        return result

    def counts(self, items: Numbers) -> Numbers:
        """Images that hold the class, be it in one pixel."""
        present = np.zeros(self._classes, dtype=np.int64)
        for seen in self._look(items):
            if isinstance(seen, MaskSummary):
                classes = np.unique(self._values[seen.found])
                present[classes[classes >= 0]] += 1
        return present

    def unlabelled(self, items: Numbers) -> NDArray[np.bool_]:
        """None: each image has its mask."""
        return np.zeros(len(items), dtype=bool)

    def digest(self, items: Numbers, *, sampled: Collection[int]) -> bytes:
        """The mask files of the images that were looked at, and what their numbers mean."""
        digest = hashlib.sha256(self._values.tobytes())
        for item in items.tolist():
            if item in sampled:
                try:
                    digest.update(content_hash(self._source.mask(item)))  # type: ignore[attr-defined]
                except StillroomError:
                    digest.update(b"none")
        return digest.digest()

    def target_findings(self) -> Iterator[Finding]:
        """Masks that can't be used, that hold unknown numbers, or nothing but void."""
        unknown, unknown_numbers, void = [], set(), []
        for item, seen in enumerate(self._look(np.arange(len(self._source.labels)))):
            if isinstance(seen, StillroomError):
                yield Finding(severity="error" if isinstance(seen, SecurityError) else "warning", failure=seen)
                continue
            values = self._values[seen.found]
            if (values < VOID).any():
                unknown.append(self._source.name(item))
                unknown_numbers |= set(seen.found[values < VOID].tolist())
            if not (values >= 0).any():
                void.append(self._source.name(item))
        if unknown:
            listed = ", ".join(str(number) for number in sorted(unknown_numbers)[:10])
            yield warning(UnknownMaskValues(count=len(unknown), numbers=listed, examples=examples(unknown)))
        if void:
            yield warning(VoidMasks(count=len(void), examples=examples(void)))

    def size_findings(self, shapes: Mapping[int, tuple[int, int]]) -> Iterator[Finding]:
        """Masks of another size than their image; those of another aspect one by one, for they are left out."""
        other = []
        for item, shape in sorted(shapes.items()):
            seen = self._look_at(item)
            if isinstance(seen, StillroomError) or seen.shape == shape:
                continue
            if not _same_aspect(seen.shape, shape):
                yield Finding(severity="warning", failure=self._mismatch(item, seen.shape, shape))
                continue
            other.append(f"{self._source.name(item)}: {shape[1]}×{shape[0]}, mask {seen.shape[1]}×{seen.shape[0]}")
        if other:
            yield warning(MaskSizeMismatch(count=len(other), examples=examples(other)))

    def _read(self, item: int) -> NDArray[np.uint8]:
        name = f"the mask of {self._source.name(item)}"
        return decode_mask(self._source.mask(item), name=name)  # type: ignore[attr-defined]

    def _look(self, items: Numbers) -> list[MaskSummary | StillroomError]:
        return thread_map(self._look_at, items.tolist())

    def _look_at(self, item: int) -> MaskSummary | StillroomError:
        if item not in self._seen:
            try:
                mask = self._read(item)
            except StillroomError as failure:
                self._seen[item] = failure
            else:
                found = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
                self._seen[item] = MaskSummary(shape=mask.shape, found=found)
        return self._seen[item]

    def _mismatch(self, item: int, mask: tuple[int, ...], image: tuple[int, ...]) -> StillroomError:
        why = f"it is {mask[1]}×{mask[0]} and the image {image[1]}×{image[0]}, which is not the same picture"
        return InvalidMask(path=f"the mask of {self._source.name(item)}", why=why)


def _values(source: Source) -> Numbers:
    """[256] what each stored number stands for, where the source doesn't say: itself, and 255 for void."""
    said = getattr(source, "values", None)
    if said is not None:
        return np.asarray(said, dtype=np.int64)
    values = np.arange(256)
    values[len(source.classes) :] = VOID - 1
    values[STORED_VOID] = VOID
    return values


def _nearest(side: int, size: int) -> Numbers:
    """[size] for each of `size` pixels the one of `side` in which its middle lies; the later one where that is a line.

    In whole numbers: Pillow adds up fractions, and then it is rounding that decides which of two it is.
    """
    return (2 * np.arange(size) + 1) * side // (2 * size)


def _same_aspect(mask: tuple[int, ...], image: tuple[int, ...]) -> bool:
    """Whether one can be the other enlarged: its height is what its width asks for, give or take a pixel."""
    return abs(mask[0] - mask[1] * image[0] / image[1]) <= 1 or abs(mask[1] - mask[0] * image[1] / image[0]) <= 1

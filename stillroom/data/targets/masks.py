"""Targets of segmentation: one class per pixel."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import grid_sample

from stillroom.data.decode_mask import decode_mask
from stillroom.data.errors import InvalidMask, MaskSizeMismatch, UnknownMaskValues, VoidMasks
from stillroom.data.finding import Finding, examples, warning
from stillroom.data.geometry import Geometry, reflect_index
from stillroom.data.sources.source import Source, content_hash
from stillroom.data.targets.target import Planes, Target
from stillroom.data.threads import thread_map
from stillroom.errors import SecurityError, StillroomError
from stillroom.types import IntArray, TargetKind

VOID, STORED_VOID = -1, 255


@dataclass(frozen=True, kw_only=True)
class MaskSummary:
    """The size and the values of a mask file.

    Attributes:
        shape: height and width.
        values: the stored values that occur.
    """

    shape: tuple[int, int]
    values: IntArray


class MaskTargets:
    """[B, H, W] int64; void pixels, and values that are no class, are -1.

    A mask may be smaller or larger than its image if the aspect ratio agrees to within a pixel: both are stretched to
    the same square, the mask by nearest-neighbour sampling. A mask of another aspect ratio can't belong to the image,
    which then counts as unreadable.
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
        self._class_of = _class_of_value(source)
        plane_values = np.where(self._class_of < 0, STORED_VOID, self._class_of)
        self._plane_values: NDArray[np.uint8] = plane_values.astype(np.uint8)
        self._summaries: dict[int, MaskSummary | StillroomError] = {}

    def read_planes(self, item: int, *, shape: tuple[int, int], size: int) -> Planes:
        """The mask [1, size, size] of classes, void as 255.

        Raises:
            StillroomError: SR-D122 another aspect ratio than the image's, or not a mask, SR-D102 .. SR-D106.
        """
        mask = self._read(item)
        if not _same_aspect(mask.shape, shape):
            raise self._mismatch(item, mask.shape, shape)
        rows, columns = (_nearest(side, size) for side in mask.shape)
        return self._plane_values[mask[rows][:, columns]][None]

    def take(self, items: IntArray, planes: Planes) -> Target:
        """The masks."""
        mask = planes[:, 0].astype(np.int64)
        mask[planes[:, 0] == STORED_VOID] = VOID
        return torch.from_numpy(mask)

    def transform(self, target: Target, geometry: Geometry) -> Target:
        """The transformed masks, with nearest-neighbour sampling for zoom and rotation."""
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
        source = torch.from_numpy(masks).float()[:, None]  # classes are below 255, which float32 represents exactly
        for i in range(len(masks)):  # one image at a time, as in `augment`
            one = slice(i, i + 1)
            sampled = grid_sample(
                source[one], grid[one], mode="nearest", padding_mode="reflection", align_corners=False
            )
            result[i] = sampled[0, 0].long()
        return result

    def counts(self, items: IntArray) -> IntArray:
        """Images that contain the class in at least one pixel."""
        images = np.zeros(self._classes, dtype=np.int64)
        for summary in self._summarise_all(items):
            if isinstance(summary, MaskSummary):
                classes = np.unique(self._class_of[summary.values])
                images[classes[classes >= 0]] += 1
        return images

    def unlabelled(self, items: IntArray) -> NDArray[np.bool_]:
        """No image: each has a mask."""
        return np.zeros(len(items), dtype=bool)

    def digest(self, items: IntArray, *, sampled: Collection[int]) -> bytes:
        """The mask files of the sampled images, and the classes of their values."""
        digest = hashlib.sha256(self._class_of.tobytes())
        for item in items.tolist():
            if item in sampled:
                try:
                    digest.update(content_hash(self._source.mask(item)))  # type: ignore[attr-defined]
                except StillroomError:
                    digest.update(b"none")
        return digest.digest()

    def target_findings(self) -> Iterator[Finding]:
        """Masks that are unreadable, contain unknown values, or are entirely void."""
        unknown, unknown_values, void = [], set(), []
        for item, summary in enumerate(self._summarise_all(np.arange(len(self._source.labels)))):
            if isinstance(summary, StillroomError):
                yield Finding(severity="error" if isinstance(summary, SecurityError) else "warning", failure=summary)
                continue
            classes = self._class_of[summary.values]
            if (classes < VOID).any():
                unknown.append(self._source.name(item))
                unknown_values |= set(summary.values[classes < VOID].tolist())
            if not (classes >= 0).any():
                void.append(self._source.name(item))
        if unknown:
            listed = ", ".join(str(value) for value in sorted(unknown_values)[:10])
            yield warning(UnknownMaskValues(count=len(unknown), numbers=listed, examples=examples(unknown)))
        if void:
            yield warning(VoidMasks(count=len(void), examples=examples(void)))

    def size_findings(self, sizes: Mapping[int, tuple[int, int]]) -> Iterator[Finding]:
        """Masks of another size than their image; each mask of another aspect ratio is its own finding."""
        resized = []
        for item, size in sorted(sizes.items()):
            summary = self._summarise(item)
            if isinstance(summary, StillroomError) or summary.shape == size:
                continue
            height, width = summary.shape
            if not _same_aspect(summary.shape, size):
                yield Finding(severity="warning", failure=self._mismatch(item, summary.shape, size))
                continue
            resized.append(f"{self._source.name(item)}: {size[1]}×{size[0]}, mask {width}×{height}")
        if resized:
            yield warning(MaskSizeMismatch(count=len(resized), examples=examples(resized)))

    def _read(self, item: int) -> NDArray[np.uint8]:
        name = f"the mask of {self._source.name(item)}"
        return decode_mask(self._source.mask(item), name=name)  # type: ignore[attr-defined]

    def _summarise_all(self, items: IntArray) -> list[MaskSummary | StillroomError]:
        return thread_map(self._summarise, items.tolist())

    def _summarise(self, item: int) -> MaskSummary | StillroomError:
        if item not in self._summaries:
            try:
                mask = self._read(item)
            except StillroomError as failure:
                self._summaries[item] = failure
            else:
                values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
                self._summaries[item] = MaskSummary(shape=mask.shape, values=values)
        return self._summaries[item]

    def _mismatch(self, item: int, mask: tuple[int, ...], image: tuple[int, ...]) -> StillroomError:
        why = f"it is {mask[1]}×{mask[0]} and the image {image[1]}×{image[0]}: their aspect ratios differ"
        return InvalidMask(path=f"the mask of {self._source.name(item)}", why=why)


def _class_of_value(source: Source) -> IntArray:
    """[256] the class of each stored value: by default the value itself, with 255 for void. See `Source.values`."""
    values = getattr(source, "values", None)
    if values is not None:
        return np.asarray(values, dtype=np.int64)
    class_of = np.arange(256)
    class_of[len(source.classes) :] = VOID - 1
    class_of[STORED_VOID] = VOID
    return class_of


def _nearest(side: int, size: int) -> IntArray:
    """[size] the source pixel, of `side`, that contains the centre of each output pixel; the later one on a boundary.

    In integers, because in Pillow accumulated rounding errors decide such ties.
    """
    return (2 * np.arange(size) + 1) * side // (2 * size)


def _same_aspect(mask: tuple[int, ...], image: tuple[int, ...]) -> bool:
    """Whether the aspect ratios agree, to within one pixel."""
    return abs(mask[0] - mask[1] * image[0] / image[1]) <= 1 or abs(mask[1] - mask[0] * image[1] / image[0]) <= 1

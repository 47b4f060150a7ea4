"""The common part of sources of boxes: annotated images first, then unlabelled ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stillroom.data.decode import oriented_size
from stillroom.data.sources._files import ImageFiles, images_below, resolve_folder
from stillroom.data.sources._splits import ORDER
from stillroom.data.sources._strata import rarest_class
from stillroom.data.sources.source import BoxAnnotations
from stillroom.types import IntArray, TargetKind


@dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
    """One image of an annotation file.

    Attributes:
        path: of the image file.
        split: "train", "val", "test", or "" if unspecified.
        boxes: [M, 4] float64 in pixels, as in `Boxes`.
        labels: [M] int64.
        crowd: [M] bool.
        size: height and width declared in the annotation file; None if there are none.
    """

    path: str
    split: str
    boxes: np.ndarray
    labels: IntArray
    crowd: np.ndarray
    size: tuple[int, int] | None


class BoxSource:
    """Base class of sources of boxes."""

    kind: TargetKind = "boxes"

    def name(self, item: int) -> str:
        """The image's path."""
        return self._files.name(item)

    def read(self, item: int) -> bytes:
        """The image file's bytes."""
        return self._files.read(item)

    def _set_images(
        self,
        annotated: list[AnnotatedImage],
        roots: Sequence[str],
        *,
        classes: int,
        below: str,
        unlabelled: str | None,
        allow_outside: bool,
    ) -> None:
        """Set `labels`, `splits`, `num_unlabelled` and the files.

        Args:
            annotated: the annotated images.
            roots: for each of them the folder (a real path) that it must stay inside.
            classes: K.
            below: the folder of the data set.
            unlabelled: a folder of unlabelled images.
            allow_outside: whether links may lead out of the folders.
        """
        folder = resolve_folder(unlabelled, below=below) if unlabelled else None
        extra = images_below(folder) if folder else []
        all_roots = [*roots, *([os.path.realpath(folder)] * len(extra) if folder else [])]
        paths = [image.path for image in annotated] + extra
        self._annotated, self._files = annotated, ImageFiles(paths, [None] * len(paths) if allow_outside else all_roots)
        self.num_unlabelled = len(extra)
        strata = rarest_class([image.labels for image in annotated], classes)
        self.labels: IntArray = np.concatenate([strata, np.full(self.num_unlabelled, -1, dtype=np.int64)])
        names = np.array([image.split for image in annotated], dtype=object)
        self.splits: dict[str, IntArray] = {
            split: np.flatnonzero(names == split) for split in ORDER if (names == split).any()
        }

    def boxes(self, item: int) -> BoxAnnotations:
        """The annotation of an item; for unlabelled images no boxes and `known=False`.

        Raises:
            StillroomError: no size is declared and the image can't be read.
        """
        if item >= len(self._annotated):
            size = self._size_from_file(item)
            none = np.empty(0, dtype=np.int64)
            return BoxAnnotations(boxes=np.empty((0, 4)), labels=none, crowd=none.astype(bool), size=size, known=False)
        image = self._annotated[item]
        size = image.size or self._size_from_file(item)
        return BoxAnnotations(boxes=image.boxes, labels=image.labels, crowd=image.crowd, size=size)

    def _size_from_file(self, item: int) -> tuple[int, int]:
        return oriented_size(self._files.read(item), name=self._files.name(item))

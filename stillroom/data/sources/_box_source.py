"""What a list of boxes becomes: the items of a source, those first of which boxes are known, then the further ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stillroom.data.decode import oriented_size
from stillroom.data.sources._files import ImageFiles, images_below, resolve_folder
from stillroom.data.sources._splits import ORDER
from stillroom.data.sources._strata import rarest_class
from stillroom.data.sources.source import BoxAnnotations, Numbers
from stillroom.types import TargetKind


@dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
    """One image of an annotation file.

    Attributes:
        path: of the image file.
        split: "train", "val", "test", or "" where nobody says.
        boxes: [M, 4] float64 in pixels, as in `Boxes`.
        labels: [M] int64.
        crowd: [M] bool.
        size: height and width that the file of annotations declares; None where it doesn't.
    """

    path: str
    split: str
    boxes: np.ndarray
    labels: Numbers
    crowd: np.ndarray
    size: tuple[int, int] | None


class BoxSource:
    """Images with boxes, and images nobody looked at: what the sources of boxes have in common."""

    kind: TargetKind = "boxes"

    def name(self, item: int) -> str:
        """The image's path."""
        return self._files.name(item)

    def read(self, item: int) -> bytes:
        """The image file's bytes."""
        return self._files.read(item)

    def _hold(
        self,
        notes: list[AnnotatedImage],
        roots: Sequence[str],
        *,
        classes: int,
        below: str,
        unlabelled: str | None,
        allow_outside: bool,
    ) -> None:
        """Take in what a source has found.

        Args:
            notes: the images of which boxes are known.
            roots: for each the folder that it must not leave, real.
            classes: K.
            below: the data's own folder.
            unlabelled: a folder of further images.
            allow_outside: whether links may lead out of the folders.
        """
        folder = resolve_folder(unlabelled, below=below) if unlabelled else None
        further = images_below(folder) if folder else []
        bounds = [*roots, *([os.path.realpath(folder)] * len(further) if folder else [])]
        paths = [note.path for note in notes] + further
        self._known, self._files = notes, ImageFiles(paths, [None] * len(paths) if allow_outside else bounds)
        self.num_unlabelled = len(further)
        strata = rarest_class([note.labels for note in notes], classes)
        self.labels: Numbers = np.concatenate([strata, np.full(self.num_unlabelled, -1, dtype=np.int64)])
        names = np.array([note.split for note in notes], dtype=object)
        self.splits: dict[str, Numbers] = {
            split: np.flatnonzero(names == split) for split in ORDER if (names == split).any()
        }

    def boxes(self, item: int) -> BoxAnnotations:
        """What is known of an item; none and `known=False` of the further ones.

        Raises:
            StillroomError: no size is declared and the image can't be read.
        """
        if item >= len(self._known):
            size = self._measured(item)
            none = np.empty(0, dtype=np.int64)
            return BoxAnnotations(boxes=np.empty((0, 4)), labels=none, crowd=none.astype(bool), size=size, known=False)
        note = self._known[item]
        size = note.size or self._measured(item)
        return BoxAnnotations(boxes=note.boxes, labels=note.labels, crowd=note.crowd, size=size)

    def _measured(self, item: int) -> tuple[int, int]:
        return oriented_size(self._files.read(item), name=self._files.name(item))

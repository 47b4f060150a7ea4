"""What a list of boxes becomes: the items of a source, those first of which boxes are known, then the further ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stillroom.data.decode import upright_size
from stillroom.data.sources._files import Files
from stillroom.data.sources._splits import ORDER
from stillroom.data.sources._strata import rarest
from stillroom.data.sources.source import Boxes, Numbers


@dataclass(frozen=True, kw_only=True)
class Note:
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


class Noted:
    """Images with boxes, and images nobody looked at: what the sources of boxes have in common.

    Args:
        notes: the images of which boxes are known.
        files: all images, the noted ones first.
        classes: K.
    """

    def __init__(self, notes: list[Note], files: Files, classes: int):
        self._notes, self._files = notes, files
        self.further = len(files) - len(notes)
        strata = rarest([note.labels for note in notes], classes)
        self.labels: Numbers = np.concatenate([strata, np.full(self.further, -1, dtype=np.int64)])
        names = np.array([note.split for note in notes], dtype=object)
        self.splits: dict[str, Numbers] = {
            split: np.flatnonzero(names == split) for split in ORDER if (names == split).any()
        }

    def boxes(self, item: int) -> Boxes:
        """What is known of an item; none and `known=False` of the further ones.

        Raises:
            Failure: no size is declared and the image can't be read.
        """
        if item >= len(self._notes):
            size = self._measured(item)
            none = np.empty(0, dtype=np.int64)
            return Boxes(boxes=np.empty((0, 4)), labels=none, crowd=none.astype(bool), size=size, known=False)
        note = self._notes[item]
        size = note.size or self._measured(item)
        return Boxes(boxes=note.boxes, labels=note.labels, crowd=note.crowd, size=size)

    def _measured(self, item: int) -> tuple[int, int]:
        return upright_size(self._files.read(item), name=self._files.name(item))

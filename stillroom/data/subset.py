"""Some rows of a split as a split of its own, for training that needs labels."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from stillroom.data.store import Split
from stillroom.data.targets.target import Target
from stillroom.types import IntArray


def labelled_subset(split: Split) -> Split:
    """The labelled rows of a split; the split itself if all of its rows are labelled."""
    rows = np.flatnonzero(~split.targets.unlabelled(split.items))
    return split if len(rows) == len(split.items) else Subset(split, rows)


class Subset(Split):
    """A view of some rows of a split; reading is left to that split.

    Args:
        parent: the split.
        rows: of the split.
    """

    def __init__(self, parent: Split, rows: IntArray):
        self.name, self.in_memory, self.max_pixels = parent.name, parent.in_memory, parent.max_pixels
        self.listed, self.targets = parent.listed[rows], parent.targets
        self._parent, self._rows = parent, rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def items(self) -> IntArray:
        """[n] item index of each row, see `Split.items`."""
        return self._parent.items[self._rows]

    @property
    def labels(self) -> IntArray:
        """[n] label of each row, see `Split.labels`."""
        return self._parent.labels[self._rows]

    def name_of(self, item: int) -> str:
        """The source's name of an item."""
        return self._parent.name_of(item)

    def take(self, rows: IntArray) -> tuple[Tensor, Target, IntArray]:
        """Images, target and item indices of rows, see `Split.take`."""
        return self._parent.take(self._rows[rows])

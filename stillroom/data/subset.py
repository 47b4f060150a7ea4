"""Some rows of a split as a split of their own: what labels alone teach is taught on images that have one."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from stillroom.data.sources.source import Numbers
from stillroom.data.store import Split
from stillroom.data.targets.target import Target


def labelled_subset(split: Split) -> Split:
    """The rows of which something is known; the split itself where that is all of them."""
    rows = np.flatnonzero(~split.targets.unlabelled(split.items))
    return split if len(rows) == len(split.items) else Subset(split, rows)


class Subset(Split):
    """Some rows of a split, which does the reading.

    Args:
        whole: the split.
        rows: which of its rows.
    """

    def __init__(self, whole: Split, rows: Numbers):
        self.name, self.memory, self.max_pixels = whole.name, whole.memory, whole.max_pixels
        self.listed, self.targets = whole.listed[rows], whole.targets
        self._whole, self._rows = whole, rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def items(self) -> Numbers:
        """[n] the source's numbers of these rows."""
        return self._whole.items[self._rows]

    @property
    def labels(self) -> Numbers:
        """[n] what the source calls labels."""
        return self._whole.labels[self._rows]

    def name_of(self, item: int) -> str:
        """What the source calls an item."""
        return self._whole.name_of(item)

    def take(self, rows: Numbers) -> tuple[Tensor, Target, Numbers]:
        """Images, target and item numbers of rows, as the whole split gives them."""
        return self._whole.take(self._rows[rows])

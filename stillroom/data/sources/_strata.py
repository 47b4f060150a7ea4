"""Which class an image with several counts for when a set is shared out: the one that there is least of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stillroom.data.sources.source import Numbers


def rarest_class(found: Sequence[Numbers], classes: int) -> Numbers:
    """For each image the class in it that fewest images have, the lower number of two; -1 where there is none.

    Args:
        found: for each of N images the classes in it, in any order and number; others than 0..classes-1 don't count.
        classes: K.

    Returns:
        [N].
    """
    present = np.zeros((len(found), classes), dtype=bool)
    for row, numbers in enumerate(found):
        present[row, numbers[(numbers >= 0) & (numbers < classes)]] = True
    if not classes:
        return np.full(len(found), -1, dtype=np.int64)
    images = present.sum(axis=0)
    least = np.where(present, images, len(found) + 1).argmin(axis=1)
    return np.where(present.any(axis=1), least, -1).astype(np.int64)

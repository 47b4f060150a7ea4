"""The stratum of images that contain several classes, for splitting: their rarest class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stillroom.types import IntArray


def rarest_class(found: Sequence[IntArray], classes: int) -> IntArray:
    """For each image the one of its classes that is in the fewest images; the lower label on ties, -1 without a class.

    Args:
        found: for each of N images the labels in it, in any order, with repetitions; labels outside 0..K-1 are ignored.
        classes: K.

    Returns:
        [N] labels.
    """
    present = np.zeros((len(found), classes), dtype=bool)
    for row, labels in enumerate(found):
        present[row, labels[(labels >= 0) & (labels < classes)]] = True
    if not classes:
        return np.full(len(found), -1, dtype=np.int64)
    images = present.sum(axis=0)
    rarest = np.where(present, images, len(found) + 1).argmin(axis=1)
    return np.where(present.any(axis=1), rarest, -1).astype(np.int64)

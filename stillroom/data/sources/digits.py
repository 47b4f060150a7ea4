"""The built-in data set: scikit-learn's 1,797 real handwritten digits, 8x8 grey, 17 levels.

Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998, CC BY 4.0. https://doi.org/10.24432/C50P49
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stillroom.types import IntArray


class Digits:
    """The digits 0 to 9, without predefined splits."""

    classes = tuple("0123456789")
    channels = 1

    def __init__(self) -> None:
        from sklearn.datasets import load_digits  # importing it takes a second

        data = load_digits()
        # 0..16 becomes 0..255: 15.9375 per level, rounded half up.
        self._images: NDArray[np.uint8] = np.floor(data.images * (255 / 16) + 0.5).astype(np.uint8)
        self.labels: IntArray = data.target.astype(np.int64)
        self.splits: dict[str, IntArray] = {}

    def name(self, item: int) -> str:
        """`digit 17`."""
        return f"digit {item}"

    def read(self, item: int) -> NDArray[np.uint8]:
        """[8, 8]."""
        return self._images[item]

"""A teacher that has answered already."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from stillroom.data.hash_rng import VIEW_SEED, decode_key
from stillroom.teachers.cache import Cache
from stillroom.types import Output


class CachedTeacher:
    """Says what a teacher said of the same pixels, as a `Cache` holds it.

    Args:
        cache: whole.
        items: [N] numbers of the training images, in any order: those that the cache was made of.
        temperature: at which leading classes alone are exact, see `Form`; of no effect where all classes are kept.
    """

    def __init__(self, cache: Cache, items: NDArray[np.int64], *, temperature: float = 1.0):
        self.cache, self.temperature = cache, temperature
        self._items = np.sort(items)
        if len(items) != cache.images:
            raise ValueError(f"a cache of {cache.images} images can't answer for {len(items)}")

    def __call__(self, views: tuple[Tensor, ...], keys: Tensor, taps: tuple[str, ...]) -> Output:
        """What the teacher said under these keys.

        Raises:
            ValueError: a key is none of a look that the cache holds, or there is more than one view.
            DamagedCache: SR-T602 the files are damaged.
        """
        (images,) = views
        rows = self.cache.read(self.numbers(keys.cpu().numpy()))
        said = self.cache.form.output(rows, temperature=self.temperature)

        def there(value: Tensor) -> Tensor:
            return value.to(images.device, non_blocking=True)

        return Output(pred=there(said.pred), taps={name: there(said.taps[name]) for name in taps})

    def numbers(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which answers of the cache belong to keys [B]."""
        views, items = decode_key(VIEW_SEED, keys)
        places = np.minimum(np.searchsorted(self._items, items), len(self._items) - 1)
        if (self._items[places] != items).any() or (views >= self.cache.views).any():
            raise ValueError("these pixels are none of those that the teacher was asked about")
        return views * len(self._items) + places

    def update(self, learner: nn.Module, step: int) -> None:
        """Nothing: what is said is said."""

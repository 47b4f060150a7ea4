"""A teacher whose outputs are read from a cache."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from stillroom.data.hash_rng import VIEW_SEED, decode_key
from stillroom.teachers.cache import Cache
from stillroom.types import Output


class CachedTeacher:
    """The outputs of a teacher for the same pixels, from a `Cache`.

    Args:
        cache: whole.
        items: [N] numbers of the training images, in any order: those that the cache was made of.
        temperature: at which leading classes alone are exact, see `OutputLayout`; no effect where all are kept.
    """

    def __init__(self, cache: Cache, items: NDArray[np.int64], *, temperature: float = 1.0):
        self.cache, self.temperature = cache, temperature
        self._items = np.sort(items)
        if len(items) != cache.images:
            raise ValueError(f"a cache of {cache.images} images does not fit {len(items)} images")

    def __call__(self, views: tuple[Tensor, ...], keys: Tensor, taps: tuple[str, ...]) -> Output:
        """The teacher's outputs for these keys.

        Raises:
            ValueError: a key belongs to no view in the cache, or there is more than one view.
            DamagedCache: SR-T602 the files are damaged.
        """
        (images,) = views
        rows = self.cache.read(self.numbers(keys.cpu().numpy()))
        output = self.cache.form.output(rows, temperature=self.temperature)

        def to_device(value: Tensor) -> Tensor:
            return value.to(images.device, non_blocking=True)

        return Output(pred=to_device(output.pred), taps={name: to_device(output.taps[name]) for name in taps})

    def numbers(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows [B] of the cache that belong to keys [B]."""
        views, items = decode_key(VIEW_SEED, keys)
        places = np.minimum(np.searchsorted(self._items, items), len(self._items) - 1)
        if (self._items[places] != items).any() or (views >= self.cache.views).any():
            raise ValueError("a key belongs to no view that is in the cache")
        return views * len(self._items) + places

    def update(self, learner: nn.Module, step: int) -> None:
        """Does nothing: outputs are fixed."""

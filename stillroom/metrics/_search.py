"""Finding the nearest vectors: one exact search, which breaks ties the same way whatever order the images came in."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

DECIMALS = 12
"""Cosines are compared to this many digits: equal vectors must tie, however the sum was ordered."""

CELLS = 2**21
"""Cosines that are held at a time, 16 MiB: the whole table of a large set would not fit into memory."""


@dataclass(frozen=True)
class Places:
    """Which rows are asked about, and among which rows they search. An image never finds itself.

    Attributes:
        queries: [Q] int64 rows, in the order of their keys.
        pool: [P] int64 rows, in the order of their keys; the queries themselves where there is no gallery.
        alone: whether pool and queries are the same.
    """

    queries: Tensor
    pool: Tensor
    alone: bool

    @classmethod
    def of(cls, keys: Tensor, gallery_keys: Collection[int], known: Tensor) -> Places:
        """Rows parted by their keys.

        Args:
            keys: [N] int64.
            gallery_keys: keys of the gallery images. If none of them is here, or none was named, the queries search
                among each other.
            known: [N] bool, the rows that may ask and be found at all.
        """
        order = torch.from_numpy(np.argsort(keys.numpy(), kind="stable"))
        stored = held(keys, gallery_keys)
        asking = order[(known & ~stored)[order]]
        return cls(asking, order[(known & stored)[order]], False) if stored.any() else cls(asking, asking, True)


def held(keys: Tensor, gallery_keys: Collection[int]) -> Tensor:
    """[N] bool: which keys are the gallery's."""
    return torch.from_numpy(np.isin(keys.numpy(), np.fromiter(gallery_keys, np.int64, len(gallery_keys))))


def unit(vectors: Tensor) -> Tensor:
    """[N, D] -> [N, D] float64 of length 1; a vector of zeros stays, and one that is not finite becomes NaN."""
    return F.normalize(vectors.double(), dim=1).masked_fill(~vectors.isfinite().all(1, keepdim=True), torch.nan)


def nearest(vectors: Tensor, places: Places, k: int) -> Tensor:
    """The k nearest of each query by cosine, the nearest first; of equally near ones the one with the smaller key.

    Exact, and in pieces: time grows with Q * P, memory with P.

    Args:
        vectors: [N, D] from `unit`.
        places: whom to ask about, and among whom.
        k: how many, at most as many as there are others.

    Returns:
        [Q, k] int64 rows of `vectors`; -1 where the query, or all that is left to be found, is not finite.
    """
    others = len(places.pool) - places.alone
    k = min(k, others)
    if k < 1 or not len(places.queries):
        return torch.zeros(len(places.queries), max(k, 0), dtype=torch.int64)
    pool = vectors[places.pool].T
    step = max(1, CELLS // len(places.pool))
    found = []
    for start in range(0, len(places.queries), step):
        rows = places.queries[start : start + step]
        cosines = (vectors[rows] @ pool).round(decimals=DECIMALS).nan_to_num(nan=-torch.inf)
        if places.alone:
            own = torch.arange(len(rows))
            cosines[own, start + own] = -torch.inf
        best = _first(cosines, k)
        said = cosines.gather(1, best).isfinite()
        found.append(places.pool[best].masked_fill(~said, -1))
    return torch.cat(found)


def _first(cosines: Tensor, k: int) -> Tensor:
    """[Q, P] -> [Q, k] columns of the greatest values, falling; of equal values the first columns.

    `topk` alone may take any of equal values. Its least value tells where to cut; all that is above it is in, and of
    those equal to it as many as there is room for, from the left.
    """
    least = cosines.topk(k, dim=1).values[:, -1:]
    above, level = cosines > least, cosines == least
    chosen = above | (level & (level.cumsum(1) <= k - above.sum(1, keepdim=True)))
    columns = chosen.nonzero()[:, 1].view(-1, k)
    order = cosines.gather(1, columns).argsort(dim=1, descending=True, stable=True)
    return columns.gather(1, order)

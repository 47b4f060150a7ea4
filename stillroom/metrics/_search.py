"""Exact nearest-neighbour search by cosine. Ties are broken by key, so the order of the images has no effect."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

DECIMALS = 12
"""Cosines are rounded to this many digits, so that equal vectors tie in whatever order their products were summed."""

MAX_COSINES = 2**21
"""Cosines computed at a time, 16 MiB: the full table of a large set would not fit into memory."""


@dataclass(frozen=True)
class SearchRows:
    """Rows of the query images, and of the images that are searched. An image is never its own neighbour.

    Attributes:
        queries: [Q] int64 rows, in the order of their keys.
        pool: [P] int64 rows that are searched, in the order of their keys: the gallery, or without one the queries.
        leave_one_out: whether the pool is the queries.
    """

    queries: Tensor
    pool: Tensor
    leave_one_out: bool

    @classmethod
    def of(cls, keys: Tensor, gallery_keys: Collection[int], usable: Tensor) -> SearchRows:
        """Split rows into queries and gallery by their keys.

        Args:
            keys: [N] int64.
            gallery_keys: keys of the gallery images. If no row has one of them, the queries search among each other.
            usable: [N] bool, the rows that may be queries or neighbours.
        """
        order = torch.from_numpy(np.argsort(keys.numpy(), kind="stable"))
        stored = in_gallery(keys, gallery_keys)
        queries = order[(usable & ~stored)[order]]
        return cls(queries, order[(usable & stored)[order]], False) if stored.any() else cls(queries, queries, True)


def in_gallery(keys: Tensor, gallery_keys: Collection[int]) -> Tensor:
    """[N] bool: which keys are the gallery's."""
    return torch.from_numpy(np.isin(keys.numpy(), np.fromiter(gallery_keys, np.int64, len(gallery_keys))))


def unit(vectors: Tensor) -> Tensor:
    """[N, D] -> [N, D] float64 of length 1; a vector of zeros is unchanged, one that is not finite becomes NaN."""
    return F.normalize(vectors.double(), dim=1).masked_fill(~vectors.isfinite().all(1, keepdim=True), torch.nan)


def nearest(vectors: Tensor, rows: SearchRows, k: int) -> Tensor:
    """The k nearest neighbours of each query by cosine, nearest first; of equally near ones the smaller key first.

    Exact, computed in pieces: time grows with Q * P, memory with P.

    Args:
        vectors: [N, D] from `unit`.
        rows: queries and pool.
        k: number of neighbours; limited to the size of the pool, without the query itself.

    Returns:
        [Q, k] int64 rows of `vectors`; -1 where the query, or every image left in the pool, is not finite.
    """
    others = len(rows.pool) - rows.leave_one_out
    k = min(k, others)
    if k < 1 or not len(rows.queries):
        return torch.zeros(len(rows.queries), max(k, 0), dtype=torch.int64)
    pool = vectors[rows.pool].T
    step = max(1, MAX_COSINES // len(rows.pool))
    found = []
    for start in range(0, len(rows.queries), step):
        part = rows.queries[start : start + step]
        cosines = (vectors[part] @ pool).round(decimals=DECIMALS).nan_to_num(nan=-torch.inf)
        if rows.leave_one_out:
            own = torch.arange(len(part))
            cosines[own, start + own] = -torch.inf
        best = _first(cosines, k)
        valid = cosines.gather(1, best).isfinite()
        found.append(rows.pool[best].masked_fill(~valid, -1))
    return torch.cat(found)


def _first(cosines: Tensor, k: int) -> Tensor:
    """[Q, P] -> [Q, k] columns of the k largest values in descending order; the first columns of equal values.

    `topk` alone may return any of equal values, so only its smallest value is used: all columns above it are taken, and
    of those equal to it the leftmost ones that are still needed.
    """
    least = cosines.topk(k, dim=1).values[:, -1:]
    above, level = cosines > least, cosines == least
    chosen = above | (level & (level.cumsum(1) <= k - above.sum(1, keepdim=True)))
    columns = chosen.nonzero()[:, 1].view(-1, k)
    order = cosines.gather(1, columns).argsort(dim=1, descending=True, stable=True)
    return columns.gather(1, order)

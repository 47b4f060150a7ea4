"""Stateless random numbers: hashes of what they are used for. Vectorised, and equal on every machine and version.

The hash is splitmix64's finaliser (Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014,
https://doi.org/10.1145/2660193.2660195), a bijection on the integers below 2^64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

BITS = np.uint64(2**63 - 1)
GOLDEN = 0x9E3779B97F4A7C15
MAX_ITEMS, MAX_EPOCHS = 2**40, 2**23
ITEM_BITS, ITEMS = np.uint64(40), np.uint64(MAX_ITEMS - 1)

VIEW_SEED = 0
"""The seed of all keys where an image has V recurring views. It is the same for every run, recipe and student, so that
a teacher's cached output for a view serves all of them. The epoch of such a key is the index of the view, 0..V - 1."""

FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
INVERSES = tuple(np.uint64(pow(int(factor), -1, 2**63)) for factor in FACTORS)


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser, elementwise."""
    values = (values ^ (values >> np.uint64(30))) * FACTORS[0]
    values = (values ^ (values >> np.uint64(27))) * FACTORS[1]
    return values ^ (values >> np.uint64(31))


def uniform(keys: ArrayLike, *, stream: int) -> NDArray[np.float64]:
    """One number in [0, 1) per key. Different streams give independent numbers for the same key.

    Args:
        keys: [B] integers.
        stream: identifies the use of the number.
    """
    offset = np.uint64((stream + 1) * GOLDEN % 2**64)
    bits = splitmix64(splitmix64(np.atleast_1d(np.asarray(keys, dtype=np.int64)).view(np.uint64) + offset) ^ offset)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def make_key(seed: int, epoch: ArrayLike, item: ArrayLike) -> NDArray[np.int64]:
    """The key of the augmented view of an item in an epoch: equal keys mean equal pixels.

    Injective in (epoch, item) for a given seed, so no two views share a key. Keys are not negative.

    Args:
        seed: of the run, or `VIEW_SEED`.
        epoch: [B] or a scalar, below 2^23.
        item: [B] or a scalar, below 2^40.

    Raises:
        ValueError: an epoch or an item is out of range.
    """
    epochs, items = np.broadcast_arrays(np.atleast_1d(epoch), np.atleast_1d(item))
    if len(items) and (items.max() >= MAX_ITEMS or epochs.max() >= MAX_EPOCHS or min(items.min(), epochs.min()) < 0):
        raise ValueError(
            f"an item must be in 0..2^40 - 1 and an epoch in 0..2^23 - 1, got {items.max()}, {epochs.max()}"
        )
    packed = (epochs.astype(np.uint64) << ITEM_BITS) | items.astype(np.uint64)
    return _mix63(packed ^ _seed_mask(seed)).view(np.int64)


def decode_key(seed: int, keys: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The inverse of `make_key`: epochs [B] and items [B].

    For every seed, each non-negative integer is the key of exactly one pair.

    Args:
        seed: the seed that the keys were made with; another seed gives other pairs.
        keys: [B] or a scalar.

    Raises:
        ValueError: a key is negative.
    """
    values = np.atleast_1d(np.asarray(keys, dtype=np.int64))
    if (values < 0).any():
        raise ValueError(f"a key is never negative, got {values.min()}")
    packed = _unmix63(values.view(np.uint64)) ^ _seed_mask(seed)
    return (packed >> ITEM_BITS).view(np.int64), (packed & ITEMS).view(np.int64)


def _seed_mask(seed: int) -> NDArray[np.uint64]:
    """[1] the value that the seed's packed pairs are XORed with."""
    return splitmix64(np.array([seed % 2**64], dtype=np.uint64)) & BITS


def _mix63(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """`splitmix64` restricted to integers below 2^63, on which odd factors and right shifts stay invertible."""
    values = ((values ^ (values >> np.uint64(30))) * FACTORS[0]) & BITS
    values = ((values ^ (values >> np.uint64(27))) * FACTORS[1]) & BITS
    return values ^ (values >> np.uint64(31))


def _unmix63(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The inverse of `_mix63`, last step first: y = x ^ (x >> s) gives x = y ^ (y >> s) ^ (y >> 2s), as 3s >= 63."""
    values = values ^ (values >> np.uint64(31)) ^ (values >> np.uint64(62))
    values = (values * INVERSES[1]) & BITS
    values = values ^ (values >> np.uint64(27)) ^ (values >> np.uint64(54))
    values = (values * INVERSES[0]) & BITS
    return values ^ (values >> np.uint64(30)) ^ (values >> np.uint64(60))


def permutation(length: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation [length] for an epoch: a pure function of its arguments."""
    return np.argsort(splitmix64(make_key(seed, epoch, np.arange(length)).view(np.uint64)), kind="stable")


def evenly_spaced(length: int, count: int) -> NDArray[np.int64]:
    """`count` evenly spaced indices in 0..length-1, ascending; all of them if there are fewer."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(np.int64))

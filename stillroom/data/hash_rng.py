"""Random numbers without a state: a hash of what they are for. Vectorised, and the same on every machine and version.

splitmix64's finaliser (Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014,
https://doi.org/10.1145/2660193.2660195) is a one-to-one map of the whole numbers below 2^64 that looks random.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

BITS = np.uint64(2**63 - 1)
GOLDEN = 0x9E3779B97F4A7C15
MAX_ITEMS, MAX_EPOCHS = 2**40, 2**23
ITEM_BITS, ITEMS = np.uint64(40), np.uint64(MAX_ITEMS - 1)

VIEW_SEED = 0
"""The seed of all keys where an image has V looks that come again: the same for every run, recipe and student, so that
what a teacher said of a look once holds for all of them. A look's epoch is then its number, 0..V - 1."""

FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
INVERSES = tuple(np.uint64(pow(int(factor), -1, 2**63)) for factor in FACTORS)


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser, number by number."""
    values = (values ^ (values >> np.uint64(30))) * FACTORS[0]
    values = (values ^ (values >> np.uint64(27))) * FACTORS[1]
    return values ^ (values >> np.uint64(31))


def uniform(keys: ArrayLike, *, stream: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each key: another stream, other numbers, independent of the first.

    Args:
        keys: [B] whole numbers.
        stream: what the number is for.
    """
    offset = np.uint64((stream + 1) * GOLDEN % 2**64)
    bits = splitmix64(splitmix64(np.atleast_1d(np.asarray(keys, dtype=np.int64)).view(np.uint64) + offset) ^ offset)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def make_key(seed: int, epoch: ArrayLike, item: ArrayLike) -> NDArray[np.int64]:
    """The key of an item's look in an epoch: equal keys mean equal pixels.

    One-to-one in (epoch, item) for a seed, so two looks never share a key. Not negative.

    Args:
        seed: of the run.
        epoch: [B] or one number, below 2^23.
        item: [B] or one number, below 2^40.
    """
    epochs, items = np.broadcast_arrays(np.atleast_1d(epoch), np.atleast_1d(item))
    if len(items) and (items.max() >= MAX_ITEMS or epochs.max() >= MAX_EPOCHS or min(items.min(), epochs.min()) < 0):
        raise ValueError(
            f"an item must be in 0..2^40 - 1 and an epoch in 0..2^23 - 1, got {items.max()}, {epochs.max()}"
        )
    packed = (epochs.astype(np.uint64) << ITEM_BITS) | items.astype(np.uint64)
    return _mix63(packed ^ _turn(seed)).view(np.int64)


def decode_key(seed: int, keys: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The inverse of `key`: the epochs [B] and items [B] whose keys these are.

    Every number that is not negative is the key of exactly one pair, whatever the seed.

    Args:
        seed: the one that the keys were made with; another gives other pairs.
        keys: [B] or one number.

    Raises:
        ValueError: a number is negative.
    """
    numbers = np.atleast_1d(np.asarray(keys, dtype=np.int64))
    if (numbers < 0).any():
        raise ValueError(f"a key is never negative, got {numbers.min()}")
    packed = _unmix63(numbers.view(np.uint64)) ^ _turn(seed)
    return (packed >> ITEM_BITS).view(np.int64), (packed & ITEMS).view(np.int64)


def _turn(seed: int) -> NDArray[np.uint64]:
    """[1] what a seed's keys are turned by."""
    return splitmix64(np.array([seed % 2**64], dtype=np.uint64)) & BITS


def _mix63(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """As `mix`, one-to-one on the numbers below 2^63: odd factors and right shifts stay invertible there."""
    values = ((values ^ (values >> np.uint64(30))) * FACTORS[0]) & BITS
    values = ((values ^ (values >> np.uint64(27))) * FACTORS[1]) & BITS
    return values ^ (values >> np.uint64(31))


def _unmix63(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """`_mix63` undone, last step first: y = x ^ (x >> s) has x = y ^ (y >> s) ^ (y >> 2s), for 3s is above 63 bits."""
    values = values ^ (values >> np.uint64(31)) ^ (values >> np.uint64(62))
    values = (values * INVERSES[1]) & BITS
    values = values ^ (values >> np.uint64(27)) ^ (values >> np.uint64(54))
    values = (values * INVERSES[0]) & BITS
    return values ^ (values >> np.uint64(30)) ^ (values >> np.uint64(60))


def permutation(length: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order [length] of an epoch: a pure function of its arguments."""
    return np.argsort(splitmix64(make_key(seed, epoch, np.arange(length)).view(np.uint64)), kind="stable")


def evenly_spaced(length: int, count: int) -> NDArray[np.int64]:
    """`count` of 0..length-1, or all where there are fewer, evenly spread, ascending."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(np.int64))

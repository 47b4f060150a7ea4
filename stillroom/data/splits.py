"""Which image is for training, which for choosing, which for the final figure. Pure functions of labels and seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stillroom.data.errors import EmptySplit
from stillroom.data.hash_rng import uniform

Numbers = NDArray[np.int64]
Splits = dict[str, Numbers]


def complete_splits(labels: Numbers, given: Splits, *, val: float = 0.15, test: float = 0.2, seed: int = 0) -> Splits:
    """Train, val and test item numbers, ascending, each item in one of them at most.

    What is given stays; what is missing is carved from train, the same share of every class:

    * nothing: `test` and `val` are shares of the whole.
    * train and test: `val` is a share of train.
    * train and val, no test: the given val becomes the test split, because it is what others report on, and a new val
      is carved from train. Choosing a model must never see what is reported.
    * no train: train is whatever is in no other split.

    Args:
        labels: [N].
        given: any of "train", "val", "test" -> item numbers. An empty one counts as missing.
        val: share that chooses the model.
        test: share that is reported.
        seed: another seed, another choice.

    Raises:
        ValueError: item numbers out of range, an item in two splits.
        EmptySplit: SR-D115, a split would be empty: too few images, or shares that leave nothing.
    """
    found = {name: np.unique(items).astype(np.int64) for name, items in given.items() if len(items)}
    _check(found, given, len(labels))
    taken = np.concatenate([items for name, items in found.items() if name != "train"] or [np.empty(0, np.int64)])
    train = found.get("train", np.setdiff1d(np.arange(len(labels)), taken))
    if "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    if "test" not in found:
        found["test"] = carve(labels, train, test, seed=seed, stream=0)
        val = val / max(1 - test, val)  # a share of the whole, so a larger share of what is left
    train = np.setdiff1d(train, found["test"])
    if "val" not in found:
        found["val"] = carve(labels, train, val, seed=seed, stream=1)
    result = {"train": np.setdiff1d(train, found["val"]), "val": found["val"], "test": found["test"]}
    for name, items in result.items():
        if not len(items):
            raise EmptySplit(split=name, images=len(labels), classes=len(np.unique(labels)))
    return result


def carve(labels: Numbers, items: Numbers, share: float, *, seed: int, stream: int) -> Numbers:
    """`share` of `items`, rounded class by class; of two images at least one (if the share is above 0), never all.

    Whether an item is chosen depends on its class mates, `seed` and `stream` only.
    """
    if share >= 1:
        return items
    chosen = []
    rank = uniform(items, stream=stream + 2 * seed)
    for label in np.unique(labels[items]):
        mates = items[labels[items] == label]
        number = min(max(round(share * len(mates)), 1 if share > 0 else 0), len(mates) - 1)
        chosen.append(mates[np.argsort(rank[labels[items] == label], kind="stable")[:number]])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def _check(found: Splits, given: Splits, length: int) -> None:
    unknown = set(given) - {"train", "val", "test"}
    if unknown:
        raise ValueError(f"splits are train, val and test, got {sorted(unknown)}")
    every = np.concatenate([*found.values(), np.empty(0, np.int64)])
    if len(every) != len(np.unique(every)):
        raise ValueError("an item is in two splits")
    if len(every) and (every.min() < 0 or every.max() >= length):
        raise ValueError(f"a split names an item outside 0..{length - 1}")

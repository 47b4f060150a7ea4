"""Splitting into train (training), val (model selection) and test (reported results): a function of labels and seed."""

from __future__ import annotations

import numpy as np

from stillroom.data.errors import EmptySplit
from stillroom.data.hash_rng import uniform
from stillroom.types import IntArray

Splits = dict[str, IntArray]


def complete_splits(labels: IntArray, given: Splits, *, val: float = 0.15, test: float = 0.2, seed: int = 0) -> Splits:
    """Item indices of train, val and test, ascending, each item in at most one split.

    Given splits are kept. Missing ones are taken from train, stratified by class:

    * nothing given: `test` and `val` are fractions of the whole.
    * train and test given: `val` is a fraction of train.
    * train and val given: the given val becomes the test split, because published results refer to it, and a new val
      is taken from train. Model selection must never see the images that results are reported on.
    * train not given: train is every item in no other split.

    Args:
        labels: [N].
        given: any of "train", "val", "test" -> item indices. An empty split counts as missing.
        val: fraction for model selection.
        test: fraction for reported results.
        seed: of the choice.

    Raises:
        ValueError: item indices out of range, an item in two splits.
        EmptySplit: SR-D115, a split would be empty: too few images, or fractions that leave nothing.
    """
    found = {name: np.unique(items).astype(np.int64) for name, items in given.items() if len(items)}
    _check(found, given, len(labels))
    taken = np.concatenate([items for name, items in found.items() if name != "train"] or [np.empty(0, np.int64)])
    train = found.get("train", np.setdiff1d(np.arange(len(labels)), taken))
    if "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    if "test" not in found:
        found["test"] = stratified_sample(labels, train, test, seed=seed, stream=0)
        val = val / max(1 - test, val)  # a fraction of the whole, so a larger fraction of what is left
    train = np.setdiff1d(train, found["test"])
    if "val" not in found:
        found["val"] = stratified_sample(labels, train, val, seed=seed, stream=1)
    result = {"train": np.setdiff1d(train, found["val"]), "val": found["val"], "test": found["test"]}
    for name, items in result.items():
        if not len(items):
            raise EmptySplit(split=name, images=len(labels), classes=len(np.unique(labels)))
    return result


def stratified_sample(labels: IntArray, items: IntArray, fraction: float, *, seed: int, stream: int) -> IntArray:
    """`fraction` of `items`, rounded per class: at least one of two images (if it is above 0), never all of them.

    Whether an item is chosen depends only on the items of its class, `seed` and `stream`.
    """
    if fraction >= 1:
        return items
    chosen = []
    rank = uniform(items, stream=stream + 2 * seed)
    for label in np.unique(labels[items]):
        of_class = items[labels[items] == label]
        count = min(max(round(fraction * len(of_class)), 1 if fraction > 0 else 0), len(of_class) - 1)
        chosen.append(of_class[np.argsort(rank[labels[items] == label], kind="stable")[:count]])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def _check(found: Splits, given: Splits, length: int) -> None:
    unknown = set(given) - {"train", "val", "test"}
    if unknown:
        raise ValueError(f"splits are train, val and test, got {sorted(unknown)}")
    items = np.concatenate([*found.values(), np.empty(0, np.int64)])
    if len(items) != len(np.unique(items)):
        raise ValueError("an item is in two splits")
    if len(items) and (items.min() < 0 or items.max() >= length):
        raise ValueError(f"a split contains an item outside 0..{length - 1}")

"""Shares counted by hand, on the labels of the real digits."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from stillroom.data.splits import complete_splits
from stillroom.errors import StillroomError

LABELS = load_digits().target.astype(np.int64)


def partition(splits, *, of):
    assert np.array_equal(np.sort(np.concatenate(list(splits.values()))), np.sort(of))
    assert all((np.diff(items) > 0).all() for items in splits.values()), "ascending"


def test_nothing_given_splits_every_class_alike():
    splits = complete_splits(LABELS, {})
    partition(splits, of=np.arange(len(LABELS)))
    for label in range(10):
        n = (label == LABELS).sum()
        count = {name: (LABELS[items] == label).sum() for name, items in splits.items()}
        assert count["test"] == round(0.2 * n)
        assert abs(count["val"] - 0.15 * n) <= 1


def test_the_same_arguments_give_the_same_split_and_another_seed_another():
    first, again, other = complete_splits(LABELS, {}), complete_splits(LABELS, {}), complete_splits(LABELS, {}, seed=1)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert len(np.intersect1d(first["test"], other["test"])) < 0.5 * len(first["test"])
    assert first["test"][:5].tolist() == [0, 18, 22, 23, 34], "frozen: published figures depend on it"


def test_all_given_stay_as_they_are():
    given = {"train": np.arange(1000), "val": np.arange(1000, 1200), "test": np.arange(1200, 1797)}
    assert all(np.array_equal(complete_splits(LABELS, given)[name], given[name]) for name in given)


def test_train_and_test_given_carves_val_from_train():
    given = {"train": np.arange(1000), "test": np.arange(1000, 1797)}
    splits = complete_splits(LABELS, given)
    assert np.array_equal(splits["test"], given["test"])
    partition({k: splits[k] for k in ("train", "val")}, of=given["train"])
    assert abs(len(splits["val"]) - 150) <= 5


def test_without_a_test_split_the_given_val_is_reported_and_a_new_one_selects():
    given = {"train": np.arange(1000), "val": np.arange(1000, 1797)}
    splits = complete_splits(LABELS, given)
    assert np.array_equal(splits["test"], given["val"])
    partition({k: splits[k] for k in ("train", "val")}, of=given["train"])


def test_only_train_given_and_only_test_given():
    splits = complete_splits(LABELS, {"train": np.arange(1000)})
    partition(splits, of=np.arange(1000))
    splits = complete_splits(LABELS, {"test": np.arange(1000)})
    partition(splits, of=np.arange(1797))
    assert np.array_equal(splits["test"], np.arange(1000))


def test_rare_classes_are_in_every_split_if_they_can_be():
    labels = np.repeat(np.arange(4), [200, 3, 2, 1])
    splits = complete_splits(labels, {})
    where = {label: [name for name, items in splits.items() if label in labels[items]] for label in range(4)}
    assert where[1] == ["train", "val", "test"]
    assert where[2] == ["train", "test"]
    assert where[3] == ["train"]


@pytest.mark.parametrize(
    ("labels", "options", "missing"),
    [
        (np.zeros(1, np.int64), {}, "val"),
        (np.zeros(0, np.int64), {}, "train"),
        (LABELS, {"val": 0.0}, "val"),
        (LABELS, {"test": 0.0}, "test"),
        (LABELS, {"val": 1.0, "test": 0.5}, "train"),
    ],
)
def test_too_few_images_or_shares_that_leave_nothing(labels, options, missing):
    with pytest.raises(StillroomError, match=f"SR-D115 no image left for {missing}"):
        complete_splits(labels, {}, **options)


def test_splits_that_overlap_or_lead_outside_are_a_mistake_of_the_source():
    with pytest.raises(ValueError, match="two splits"):
        complete_splits(LABELS, {"train": np.arange(10), "test": np.arange(9, 20)})
    with pytest.raises(ValueError, match="outside"):
        complete_splits(LABELS, {"train": np.array([1797])})
    with pytest.raises(ValueError, match="train, val and test"):
        complete_splits(LABELS, {"dev": np.arange(10)})

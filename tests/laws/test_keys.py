"""A key names an epoch and an item, and they can be read from it again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillroom.data.hash_rng import MAX_EPOCHS, MAX_ITEMS, VIEW_SEED, decode_key, make_key

seeds = st.integers(-(2**40), 2**64)
pairs = st.lists(st.tuples(st.integers(0, MAX_EPOCHS - 1), st.integers(0, MAX_ITEMS - 1)), min_size=1, max_size=50)


@given(seed=seeds, asked=pairs)
def test_from_epoch_and_item_to_the_key_and_back(seed, asked):
    epochs, items = np.array(asked).T
    found = decode_key(seed, make_key(seed, epochs, items))
    assert np.array_equal(found[0], epochs) and np.array_equal(found[1], items)
    assert found[0].dtype == found[1].dtype == np.int64


@given(seed=seeds, keys=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=50))
def test_from_a_key_to_epoch_and_item_and_back(seed, keys):
    """Any number that is not negative: so there is no key without a pair, and none with two."""
    epochs, items = decode_key(seed, torch.tensor(keys))
    assert make_key(seed, epochs, items).tolist() == keys
    for numbers, limit in ((epochs, MAX_EPOCHS), (items, MAX_ITEMS)):
        assert numbers.min() >= 0 and numbers.max() < limit


def test_the_corners():
    epochs, items = np.array([0, 0, MAX_EPOCHS - 1, MAX_EPOCHS - 1]), np.array([0, MAX_ITEMS - 1, 0, MAX_ITEMS - 1])
    for seed in (VIEW_SEED, 7, 2**63):
        found = decode_key(seed, make_key(seed, epochs, items))
        assert np.array_equal(found, (epochs, items))
    assert [part.tolist() for part in decode_key(7, 6792231356675618129)] == [[3], [0]]  # as frozen in test_augment
    assert decode_key(0, make_key(0, [], []))[0].shape == (0,)


def test_the_seed_must_be_the_same():
    epochs, items = decode_key(1, make_key(2, 5, np.arange(100)))
    assert not (epochs == 5).any() and not (items == np.arange(100)).any()


def test_nothing_negative_is_a_key():
    with pytest.raises(ValueError, match="never negative, got -3"):
        decode_key(0, [4, -3])

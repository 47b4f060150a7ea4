"""V looks at each image: in turn, the same in every run, and named by their keys."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.config.schema import Augment
from stillroom.data.augment import to_float
from stillroom.data.bad_images import BadImageLog
from stillroom.data.dataset import Split
from stillroom.data.hash_rng import VIEW_SEED, decode_key, make_key
from stillroom.data.loader import Loader, augmented_view
from stillroom.data.sources.digits import Digits

SOURCE = Digits()
POLICY = Augment(flip=True, shift=0.2, rotate=10, brightness=0.1)


def made(length: int) -> Split:
    ledger = BadImageLog(total=length, max_bad=0, report=None)
    listed = np.arange(3, 3 + 2 * length, 2)
    return Split(
        name="train", listed=listed, source=SOURCE, size=8, max_pixels=100, in_memory=True, bad_image_log=ledger
    )


SPLITS = {length: made(length) for length in (1, 7, 32)}
lengths = st.sampled_from(list(SPLITS))


def policy(views: int, **more: float) -> Augment:
    return Augment(flip=True, shift=0.2, rotate=10, brightness=0.1, num_views=views, **more)


@settings(max_examples=30)
@given(length=lengths, views=st.integers(1, 6), seed=st.integers(0, 999))
def test_an_image_goes_through_its_looks_in_turn(length, views, seed):
    """An epoch a batch: each image's look is the one after its last, and after V epochs the first comes again."""
    loader = Loader(SPLITS[length], batch=length, seed=seed, augment=policy(views))
    shown = []
    for n in range(2 * views):
        numbers, items = decode_key(VIEW_SEED, loader.at(n).keys)
        assert np.array_equal(np.sort(items), SPLITS[length].items)
        shown.append(numbers[np.argsort(items)])
    for now, after in pairwise(shown):
        assert np.array_equal((now + 1) % views, after)
    assert all(sorted(column) == list(range(views)) for column in np.array(shown[:views]).T.tolist())


def test_where_an_image_begins_is_its_own_and_the_seed_s():
    def begins(seed):
        numbers, items = decode_key(VIEW_SEED, Loader(SPLITS[32], batch=32, seed=seed, augment=policy(4)).at(0).keys)
        return numbers[np.argsort(items)]

    assert set(begins(0).tolist()) == {0, 1, 2, 3}
    assert (begins(0) != begins(1)).any() and (begins(0) == begins(0)).all()


@settings(max_examples=20)
@given(views=st.integers(1, 5), mixup=st.sampled_from([0.0, 0.3]), cutmix=st.sampled_from([0.0, 1.0]))
def test_a_look_is_the_same_in_every_run_and_in_any_company_bit_for_bit(views, mixup, cutmix):
    """Other seeds, batches and neighbours, and the rows asked for alone."""
    changes = policy(views, mixup=mixup, cutmix=cutmix)
    seen: dict[int, list[torch.Tensor]] = {}
    for seed, batch in ((0, 5), (1, 13), (2**40, 32)):
        loader = Loader(SPLITS[32], batch=batch, seed=seed, augment=changes)
        for n in range(-(-32 * views // batch)):
            one = loader.at(n)
            more = [] if one.mixed is None else [one.mixed.target, one.mixed.share]
            for name, *found in zip(one.keys.tolist(), one.images, one.target, *more, strict=True):
                assert all(map(torch.equal, seen.setdefault(name, found), found))
    assert len(seen) == 32 * views
    for row in (0, 17, 31):
        alone = augmented_view(SPLITS[32], np.array([row]), np.array([views - 1]), seed=VIEW_SEED, policy=changes)
        assert torch.equal(alone.images[0], seen[int(alone.keys[0])][0])


def test_all_looks_of_a_split_can_be_asked_for_at_once():
    """What fills a cache: every row under every look, of which a run then meets no other."""
    changes = policy(3, cutmix=1.0)
    rows, views = (grid.ravel() for grid in np.meshgrid(np.arange(32), np.arange(3)))
    whole = augmented_view(SPLITS[32], rows, views, seed=VIEW_SEED, policy=changes)
    assert np.array_equal(whole.keys, make_key(VIEW_SEED, views, SPLITS[32].items[rows]))
    at = {one: place for place, one in enumerate(whole.keys.tolist())}
    for n in range(20):
        batch = Loader(SPLITS[32], batch=10, seed=9, augment=changes).at(n)
        places = [at[one] for one in batch.keys.tolist()]
        assert torch.equal(batch.images, whole.images[places])
        assert torch.equal(batch.mixed.target, whole.mixed.target[places])


@pytest.mark.parametrize("views", [0, 5])
def test_where_nothing_changes_there_is_one_look(views):
    loaders = [Loader(SPLITS[7], batch=7, seed=seed, augment=Augment(shift=0, num_views=views)) for seed in (0, 1)]
    for one in (loaders[0].at(0), loaders[0].at(3), loaders[1].at(8)):
        numbers, items = decode_key(VIEW_SEED, one.keys)
        assert (numbers == 0).all() and sorted(items) == SPLITS[7].items.tolist()
        rows = np.searchsorted(SPLITS[7].items, items)
        assert torch.equal(one.images, to_float(SPLITS[7].images(rows)))


def test_without_views_no_look_comes_again_and_the_seed_is_in_the_key():
    batches = [Loader(SPLITS[7], batch=7, seed=seed, augment=POLICY).at(n) for seed in (0, 1) for n in range(6)]
    assert len(set(torch.cat([batch.keys for batch in batches]).tolist())) == 84
    for seed, part in ((0, batches[:6]), (1, batches[6:])):
        for epoch, batch in enumerate(part):
            assert (decode_key(seed, batch.keys)[0] == epoch).all()

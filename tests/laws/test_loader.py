"""What holds for every batch size, split length, seed and number of processes."""

from __future__ import annotations

import threading
import time
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.config.schema import Augment
from stillroom.data.augment import augment, make_key, to_float
from stillroom.data.bad_images import BadImageLog
from stillroom.data.dataset import Split, load_dataset
from stillroom.data.loader import Loader, in_order
from stillroom.data.sources.digits import Digits
from stillroom.types import Batch, Mixed

SOURCE = Digits()
POLICY = Augment(flip=True, shift=0.2, brightness=0.1)
MIXED = Augment(flip=True, shift=0.2, mixup=0.4, cutmix=1.0)
POLICIES = [POLICY, MIXED, Augment(shift=0.2, num_views=3), Augment(shift=0.2, num_views=4, mixup=0.3, cutmix=0.3)]
SPLITS: dict[int, Split] = {}

policies = st.sampled_from(POLICIES)
lengths = st.sampled_from([1, 2, 7, 32, 33, 100])


def split(length: int, *, memory: bool = True) -> Split:
    """`length` real digits."""
    if not memory or length not in SPLITS:
        ledger = BadImageLog(total=length, max_bad=0, report=None)
        listed = np.arange(3, 3 + 2 * length, 2)
        made = Split(
            name="train", listed=listed, source=SOURCE, size=8, max_pixels=100, in_memory=memory, bad_image_log=ledger
        )
        if not memory:
            return made
        SPLITS[length] = made
    return SPLITS[length]


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def tensors(batch: Batch) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    batch.map(lambda tensor: (found.append(tensor), tensor)[1])
    assert len(found) == (3 if batch.mixed is None else 5)
    return found


@settings(deadline=None, max_examples=30)
@given(length=lengths, batch=st.integers(1, 90), seed=st.integers(0, 2**32), start=st.integers(0, 40), policy=policies)
def test_starting_at_n_is_skipping_n(length, batch, seed, start, policy):
    loader = Loader(split(length), batch=batch, seed=seed, augment=policy)
    skipped = islice(Loader(split(length), batch=batch, seed=seed, augment=policy)(0), start, start + 2)
    for n, (ours, theirs) in enumerate(zip(loader(start), skipped, strict=False), start):
        assert len(ours) == batch
        assert same(ours, theirs) and same(ours, loader.at(n))


@settings(deadline=None, max_examples=40)
@given(
    length=lengths,
    share=st.integers(1, 20),
    world=st.integers(1, 5),
    seed=st.integers(0, 999),
    n=st.integers(0, 99),
    policy=policies,
)
def test_the_processes_parts_are_the_one_process_batch(length, share, world, seed, n, policy):
    whole = Loader(split(length), batch=share * world, seed=seed, augment=policy).at(n)
    parts = [
        Loader(split(length), batch=share * world, seed=seed, augment=policy, rank=rank, world=world).at(n)
        for rank in range(world)
    ]
    images, target, keys, *rest = (torch.cat(column) for column in zip(*map(tensors, parts), strict=True))
    mixed = Mixed(target=rest[0], share=rest[1]) if rest else None
    assert same(whole, Batch(images=images, target=target, keys=keys, mixed=mixed))
    assert (whole.mixed is None) == (policy.mixup == 0)


@settings(deadline=None, max_examples=40)
@given(length=lengths, batch=st.integers(1, 150), seed=st.integers(0, 999))
def test_each_epoch_holds_each_image_once(length, batch, seed):
    loader = Loader(split(length), batch=batch, seed=seed)
    batches = -(-3 * length // batch)
    stream = np.concatenate([loader.at(n).keys.numpy() for n in range(batches)])
    for epoch in range(3):
        assert np.array_equal(np.sort(stream[epoch * length : (epoch + 1) * length]), split(length).items)


def test_epochs_differ_and_seeds_differ():
    first, second = (Loader(split(100), batch=100, seed=0).at(n).keys for n in range(2))
    other = Loader(split(100), batch=100, seed=1).at(0).keys
    assert not torch.equal(first, second) and not torch.equal(first, other)


@settings(deadline=None, max_examples=20)
@given(length=lengths, batch=st.integers(1, 90), seed=st.integers(0, 2**62), n=st.integers(0, 60))
def test_a_batch_is_what_its_definition_says(length, batch, seed, n):
    """Position by position: epoch and place, image, label, key, each looked up on its own."""
    got = Loader(split(length), batch=batch, seed=seed, augment=POLICY).at(n)
    plain = Loader(split(length), batch=batch, seed=seed).at(n)
    for row in range(batch):
        item = int(plain.keys[row])
        image = torch.from_numpy(SOURCE.read(item))[None, None]
        one = make_key(seed, (n * batch + row) // length, item)
        assert got.keys[row] == one[0]
        assert got.target[row] == plain.target[row] == SOURCE.labels[item]
        assert torch.equal(plain.images[row], to_float(image)[0])
        assert torch.equal(got.images[row], augment(image, one, POLICY)[0])


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_memory_or_not_is_the_same(policy):
    kept, streamed = (Loader(split(33, memory=memory), batch=20, seed=5, augment=policy) for memory in (True, False))
    assert all(same(kept.at(n), streamed.at(n)) for n in range(5))


@settings(deadline=None, max_examples=20)
@given(length=lengths, batch=st.integers(1, 150))
def test_in_order_is_each_image_once_as_it_is(length, batch):
    batches = list(in_order(split(length), batch))
    assert [len(b) for b in batches[:-1]] == [batch] * (len(batches) - 1) and 0 < len(batches[-1]) <= batch
    assert torch.cat([b.keys for b in batches]).tolist() == split(length).items.tolist()
    assert torch.cat([b.target for b in batches]).tolist() == SOURCE.labels[split(length).items].tolist()
    assert torch.equal(torch.cat([b.images for b in batches]), to_float(split(length).images(np.arange(length))))


def test_equal_keys_mean_equal_pixels_over_a_whole_run():
    data = load_dataset(Digits(), memory_gb=0.01)
    seen: dict[int, bytes] = {}
    for batch in islice(Loader(data.splits["train"], batch=200, seed=0, augment=POLICY)(0), 15):
        for one, image in zip(batch.keys.tolist(), batch.images, strict=True):
            assert one not in seen, "two looks at an image are two keys"
            seen[one] = image.numpy().tobytes()
    for batch in islice(Loader(data.splits["train"], batch=50, seed=0, augment=POLICY)(7), 10):
        for one, image in zip(batch.keys.tolist(), batch.images, strict=True):
            assert seen[one] == image.numpy().tobytes()


@pytest.mark.parametrize(("batch", "rank", "world"), [(10, 0, 3), (0, 0, 1), (10, 2, 2), (10, -1, 2)])
def test_batches_that_can_t_be_shared(batch, rank, world):
    with pytest.raises(ValueError, match=r"split equally|rank must be"):
        Loader(split(32), batch=batch, seed=0, rank=rank, world=world)


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "stillroom-loader"]


def test_closing_early_leaves_no_thread_behind():
    assert workers() == []
    for started in (Loader(split(32), batch=8, seed=0)(0), in_order(split(100), 1)):
        next(started)
        assert len(workers()) == 1
        started.close()
        assert workers() == []


def test_a_failure_in_the_background_reaches_the_caller_and_ends_the_thread(monkeypatch):
    made = split(32)
    loader = Loader(made, batch=8, seed=0)
    allowed = made.take
    calls = []

    def take(rows):
        calls.append(rows)
        if len(calls) == 3:
            raise OSError("the disk is gone")
        return allowed(rows)

    monkeypatch.setattr(made, "take", take)
    batches = loader(0)
    next(batches), next(batches)
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert workers() == []


def test_two_batches_are_prepared_ahead_and_no_more(monkeypatch):
    made = split(32)
    allowed, calls = made.take, []
    monkeypatch.setattr(made, "take", lambda rows: (calls.append(1), allowed(rows))[1])
    batches = Loader(made, batch=8, seed=0)(0)
    next(batches)
    waited = time.monotonic()
    while len(calls) < 4 and time.monotonic() - waited < 10:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(calls) == 4, "one used, two waiting, one in hand"
    batches.close()

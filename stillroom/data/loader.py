"""The n-th batch of a run is a pure function of n: that is the whole of resuming, and of training on several machines.

One endless stream holds every epoch's permutation of the split, one behind the other without a gap; batch n is the
stream's positions n·B to (n+1)·B. A batch may therefore be larger than the split, or hold the end of one epoch and the
start of the next, and each epoch still shows each image once.

What an image looks like follows from its key, the split and the policy, and from nothing else. With V looks at an image
(`Augment.distinct_views`) a key names an image and one of them, the same in every run; an image goes through its looks
in turn, and where it begins depends on the run's seed. Else a key names seed, epoch and image, and no look comes again.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray

from stillroom.config.schema import Augment
from stillroom.data.augment import augment, make_key, to_float
from stillroom.data.dataset import Split
from stillroom.data.geometry import geometry
from stillroom.data.hash_rng import VIEW_SEED, permutation, uniform
from stillroom.data.mixing import mix_images, mixing_partners
from stillroom.types import Batch, Mixed

PREFETCHED = 2
FIRST_VIEW = 12  # 0 to 11 are what `augment` draws

_permutation = lru_cache(maxsize=4)(permutation)


class Loader:
    """Training batches, for one of `world` processes.

    Args:
        split: what is read.
        batch: B, images in a batch of all processes together.
        seed: of order and augmentation.
        augment: how images change; None leaves them alone.
        rank: which process this is; it gets the `rank`-th of `world` equal parts of each batch.
        world: how many processes there are.

    Raises:
        ValueError: the batch can't be shared equally, or a number is out of range.
    """

    def __init__(
        self, split: Split, *, batch: int, seed: int, augment: Augment | None = None, rank: int = 0, world: int = 1
    ):
        if batch < 1 or batch % world:
            raise ValueError(f"a batch of {batch} can't be shared equally by {world} processes")
        if not 0 <= rank < world:
            raise ValueError(f"rank must be in 0..{world - 1}, got {rank}")
        self.split, self.batch, self.seed, self.augment = split, batch, seed, augment
        self.rank, self.world = rank, world

    def __call__(self, n: int = 0) -> Generator[Batch]:
        """Batches n, n + 1, ... without end; the next two are prepared while one is used."""
        return prefetch(self.at, count(n))

    def at(self, n: int) -> Batch:
        """Batch n, the part of this process."""
        rows, epochs = self.rows_and_epochs(n)
        if self.augment is None:
            return _as_stored(self.split, rows)
        looks = self.augment.distinct_views
        if not looks:
            return augmented_view(self.split, rows, epochs, seed=self.seed, policy=self.augment)
        first = np.floor(uniform(make_key(self.seed, 0, rows), stream=FIRST_VIEW) * looks).astype(np.int64)
        return augmented_view(self.split, rows, (epochs + first) % looks, seed=VIEW_SEED, policy=self.augment)

    def rows_and_epochs(self, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the split and their epochs, [B / world] each, in this process's part of batch n."""
        share = self.batch // self.world
        start = n * self.batch + self.rank * share
        epochs, offsets = np.divmod(np.arange(start, start + share), len(self.split))
        rows = np.empty(share, dtype=np.int64)
        for epoch in np.unique(epochs):
            now = epochs == epoch
            rows[now] = _permutation(len(self.split), seed=self.seed, epoch=int(epoch))[offsets[now]]
        return rows, epochs


def augmented_view(
    split: Split, rows: NDArray[np.int64], epochs: NDArray[np.int64], *, seed: int, policy: Augment
) -> Batch:
    """Images of a split as they look in some epoch: a pure function, each row of the others.

    Args:
        split: what is read; twice, where images are mixed.
        rows: [B] of the split.
        epochs: [B] the epoch of each; with `seed` = LOOKS the number of a look, 0..V - 1.
        seed: of the keys.
        policy: how images change.
    """
    batch = _alone(split, rows, epochs, seed, policy)
    if not (policy.mixup or policy.cutmix):
        return batch
    others = _alone(split, mixing_partners(batch.keys.numpy(), len(split)), epochs, seed, policy)
    share = mix_images(others.images, batch.images, batch.keys.numpy(), policy)
    return replace(batch, mixed=Mixed(target=others.target, share=share))


def _alone(split: Split, rows: NDArray[np.int64], epochs: NDArray[np.int64], seed: int, policy: Augment) -> Batch:
    """`look` before anything is mixed."""
    images, target, items = split.take(rows)
    keys = make_key(seed, epochs, items)
    how = geometry(keys, policy, height=images.shape[2], width=images.shape[3])
    return Batch(
        images=augment(images, keys, policy, padding=split.targets.padding),
        target=split.targets.transform(target, how),
        keys=torch.from_numpy(keys),
    )


def _as_stored(split: Split, rows: NDArray[np.int64]) -> Batch:
    """Images as they are. Keys are item numbers."""
    images, target, items = split.take(rows)
    return Batch(images=to_float(images), target=target, keys=torch.from_numpy(items))


def in_order(split: Split, batch: int, *, rows: NDArray[np.int64] | None = None) -> Iterator[Batch]:
    """Each image of the split once, as it is, in order; the last batch may be smaller. Keys are item numbers.

    Args:
        split: what is read.
        batch: images at a time.
        rows: those of the split that are wanted; None: all.
    """
    wanted = np.arange(len(split)) if rows is None else rows
    return prefetch(lambda start: _as_stored(split, wanted[start : start + batch]), range(0, len(wanted), batch))


def prefetch(make: Callable[[int], Batch], numbers: Iterable[int]) -> Generator[Batch]:
    """make(number) for each, made in one background thread, `AHEAD` of them before they are asked for.

    A thread and not processes: numpy and Pillow let go of the interpreter lock where the work is, and nothing is
    copied, forked or left behind. What `make` raises is raised here.
    """
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(PREFETCHED)
    closed = threading.Event()

    def put(what: Batch | BaseException | None) -> bool:
        while not closed.is_set():
            try:
                ready.put(what, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for number in numbers:
                if closed.is_set() or not put(make(number)):
                    return
            put(None)
        except BaseException as problem:  # whatever it is, it belongs to the caller
            put(problem)

    worker = threading.Thread(target=work, name="stillroom-loader", daemon=True)
    worker.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        with suppress(queue.Empty):
            while True:
                ready.get_nowait()  # wakes the worker where it waits for a place
        worker.join()

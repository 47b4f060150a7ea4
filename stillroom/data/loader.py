"""Training batches as a pure function of their index n, so that resuming and sharding over processes need no state.

The permutations of all epochs are concatenated into one endless stream; batch n is positions n B to (n + 1) B. A batch
may therefore be larger than the split, or contain the end of one epoch and the start of the next, and each epoch still
contains each image once.

The pixels of an augmented image follow from its key, the split and the policy only. With a finite number V of views
(`Augment.looks`) a key stands for an image and the index of a view, which are the same in every run; each image cycles
through its views, starting at one that depends on the run's seed. Otherwise a key stands for seed, epoch and image, and
no view recurs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import count

import numpy as np
import torch

from stillroom.config.schema import Augment
from stillroom.data.augment import augment, make_key, to_float
from stillroom.data.dataset import Split
from stillroom.data.geometry import geometry
from stillroom.data.hash_rng import VIEW_SEED, permutation, uniform
from stillroom.data.mixing import mix_images, mixing_partners
from stillroom.data.prefetch import prefetch
from stillroom.types import Batch, IntArray, Mixed

FIRST_VIEW = 12  # stream of random numbers; 0 to 11 are used by `augment`

_permutation = lru_cache(maxsize=4)(permutation)


class Loader:
    """Training batches for one of `world` processes.

    Args:
        split: the images.
        batch: B, the global batch size over all processes.
        seed: of order and augmentation.
        augment: the augmentation policy; None for images as stored.
        rank: of this process, which gets the `rank`-th of `world` equal shards of each batch.
        world: number of processes.

    Raises:
        ValueError: the batch can't be split equally, or a number is out of range.
    """

    def __init__(
        self, split: Split, *, batch: int, seed: int, augment: Augment | None = None, rank: int = 0, world: int = 1
    ):
        if batch < 1 or batch % world:
            raise ValueError(f"a batch of {batch} can't be split equally over {world} processes")
        if not 0 <= rank < world:
            raise ValueError(f"rank must be in 0..{world - 1}, got {rank}")
        self.split, self.batch, self.seed, self.augment = split, batch, seed, augment
        self.rank, self.world = rank, world

    def __call__(self, n: int = 0) -> Generator[Batch]:
        """Batches n, n + 1, ... without end, prefetched."""
        return prefetch(self.at, count(n))

    def at(self, n: int) -> Batch:
        """The shard of this process in batch n."""
        rows, epochs = self.rows_and_epochs(n)
        if self.augment is None:
            return _as_stored(self.split, rows)
        views = self.augment.distinct_views
        if not views:
            return augmented_view(self.split, rows, epochs, seed=self.seed, policy=self.augment)
        first = np.floor(uniform(make_key(self.seed, 0, rows), stream=FIRST_VIEW) * views).astype(np.int64)
        return augmented_view(self.split, rows, (epochs + first) % views, seed=VIEW_SEED, policy=self.augment)

    def rows_and_epochs(self, n: int) -> tuple[IntArray, IntArray]:
        """Rows of the split and their epochs, [B / world] each, in this process's shard of batch n."""
        size = self.batch // self.world
        start = n * self.batch + self.rank * size
        epochs, offsets = np.divmod(np.arange(start, start + size), len(self.split))
        rows = np.empty(size, dtype=np.int64)
        for epoch in np.unique(epochs):
            in_epoch = epochs == epoch
            rows[in_epoch] = _permutation(len(self.split), seed=self.seed, epoch=int(epoch))[offsets[in_epoch]]
        return rows, epochs


def augmented_view(split: Split, rows: IntArray, epochs: IntArray, *, seed: int, policy: Augment) -> Batch:
    """Augmented images of a split: a pure function of its arguments, independent for each row.

    Args:
        split: the images, and the mixing partners where the policy mixes images.
        rows: [B] of the split.
        epochs: [B] the epoch of each row; with `seed` = VIEW_SEED the index of the view, 0..V - 1.
        seed: of the keys.
        policy: the augmentation policy.
    """
    batch = _unmixed_view(split, rows, epochs, seed, policy)
    if not (policy.mixup or policy.cutmix):
        return batch
    others = _unmixed_view(split, mixing_partners(batch.keys.numpy(), len(split)), epochs, seed, policy)
    share = mix_images(others.images, batch.images, batch.keys.numpy(), policy)
    return replace(batch, mixed=Mixed(target=others.target, share=share))


def _unmixed_view(split: Split, rows: IntArray, epochs: IntArray, seed: int, policy: Augment) -> Batch:
    """`augmented_view` without mixing."""
    images, target, items = split.take(rows)
    keys = make_key(seed, epochs, items)
    moves = geometry(keys, policy, height=images.shape[2], width=images.shape[3])
    return Batch(
        images=augment(images, keys, policy, padding=split.targets.padding),
        target=split.targets.transform(target, moves),
        keys=torch.from_numpy(keys),
    )


def _as_stored(split: Split, rows: IntArray) -> Batch:
    """Images without augmentation; keys are item indices."""
    images, target, items = split.take(rows)
    return Batch(images=to_float(images), target=target, keys=torch.from_numpy(items))


def in_order(split: Split, batch: int, *, rows: IntArray | None = None) -> Iterator[Batch]:
    """Each image of the split once, in order, without augmentation; the last batch may be smaller.

    Keys are item indices.

    Args:
        split: the images.
        batch: images per batch.
        rows: of the split; None for all.
    """
    selected = np.arange(len(split)) if rows is None else rows
    return prefetch(lambda start: _as_stored(split, selected[start : start + batch]), range(0, len(selected), batch))

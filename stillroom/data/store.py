"""The decoded images of a split: cached in memory if they fit, otherwise decoded on request.

A split is read on first use, so the test split is not opened before the end of a run. In train and val an unreadable
image is replaced by the next readable one of the split, with its label and item index: the batch keeps its size and
the n-th batch stays a pure function of n. In test it is left out. All are listed in bad_files.csv.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillroom.data.bad_images import BadImageLog, raise_if_unsafe
from stillroom.data.decode import to_pixels
from stillroom.data.errors import NoImages
from stillroom.data.resize import resize_and_crop, resize_square
from stillroom.data.sources.source import Source
from stillroom.data.targets.build import build_targets
from stillroom.data.targets.target import Target, Targets
from stillroom.data.threads import thread_map
from stillroom.errors import StillroomError
from stillroom.types import IntArray

PROBED_TOGETHER = 256  # images decoded at a time to find the unreadable ones of a test split that is not cached


class Split:
    """The images of one split, [C, H, W] uint8 each, and their targets.

    A row is a position in the split, an item the index of an image in the source.

    Args:
        name: "train", "val" or "test".
        listed: items of the split, including unreadable ones.
        source: reads the images.
        size: H = W.
        max_pixels: of the decode rule.
        in_memory: whether the decoded images are cached.
        bad_image_log: records unreadable images.
        targets: of the source's images; None to build them from the source.
    """

    def __init__(
        self,
        *,
        name: str,
        listed: IntArray,
        source: Source,
        size: int,
        max_pixels: int,
        in_memory: bool,
        bad_image_log: BadImageLog,
        targets: Targets | None = None,
    ):
        self.name, self.listed, self.in_memory, self.max_pixels = name, listed, in_memory, max_pixels
        self.targets = build_targets(source) if targets is None else targets
        self._source, self._size, self._bad_image_log = source, size, bad_image_log
        self._items = listed.copy()
        self._cached: NDArray[np.uint8] | None = None
        self._ready = False
        self._lock = threading.RLock()

    def __len__(self) -> int:
        if self.name == "test":
            self._prepare()
        return len(self._items)

    @property
    def items(self) -> IntArray:
        """[n] item of each row; a replaced row has the item of its replacement."""
        self._prepare()
        return self._items

    @property
    def labels(self) -> IntArray:
        """[n] label of each row, see `Source.labels`; -1 where it is not used."""
        return np.where(self.targets.unlabelled(self.items), -1, self._source.labels[self.items])

    def name_of(self, item: int) -> str:
        """The source's name of an item."""
        return self._source.name(item)

    def images(self, rows: IntArray) -> Tensor:
        """[len(rows), C, H, W] uint8."""
        return self.take(rows)[0]

    def take(self, rows: IntArray) -> tuple[Tensor, Target, IntArray]:
        """Images [n, C, H, W] uint8, their target (see `stillroom.types.TargetKind`) and their items [n].

        Raises:
            TooManyBadImages: SR-D107, more bad images than allowed.
        """
        self._prepare()
        pixels = self._cached[rows] if self._cached is not None else self._decode_or_replace(np.asarray(rows))
        items = self._items[rows]
        channels = self._source.channels
        images = np.ascontiguousarray(pixels[:, :channels])
        return torch.from_numpy(images), self.targets.take(items, pixels[:, channels:]), items

    def _prepare(self) -> None:
        """On first use, fill the cache; without a cache, find the readable images of test."""
        with self._lock:
            if self._ready:
                return
            if self.in_memory:
                pixels, good = self._decode(self._items)
                rows = self._readable_rows(good)
                self._cached, self._items = (pixels, self._items) if rows is None else (pixels[rows], self._items[rows])
            elif self.name == "test":
                starts = range(0, len(self._items), PROBED_TOGETHER)  # in pieces, because the pixels are not needed
                pieces = [self._items[start : start + PROBED_TOGETHER] for start in starts]
                self._items = self._items[np.concatenate([self._decode(piece)[1] for piece in pieces])]
            self._ready = True

    def _readable_rows(self, good: NDArray[np.bool_]) -> IntArray | None:
        """The rows that remain (test) or stand in for each row (train and val); None if all are readable."""
        if good.all():
            return None
        if self.name == "test":
            return np.flatnonzero(good)
        return np.array([self._next_row(row, good.__getitem__) for row in range(len(good))])

    def _decode_or_replace(self, rows: IntArray) -> NDArray[np.uint8]:
        images, good = self._decode(self._items[rows])
        for i in np.flatnonzero(~good):
            row = self._next_row(int(rows[i]), lambda row: self._decode_into(images[i], row))  # noqa: B023 - called at once
            with self._lock:
                self._items[rows[i]] = self.listed[row]
        return images

    def _decode_into(self, out: NDArray[np.uint8], row: int) -> bool:
        """Decode a row into `out`; whether it could be read."""
        image, good = self._decode(self.listed[row : row + 1])
        out[:] = image[0]
        return bool(good[0])

    def _next_row(self, row: int, good: Callable[[int], bool]) -> int:
        """The first good row at or after `row`, wrapping around at the end."""
        for step in range(len(self.listed)):
            if good((row + step) % len(self.listed)):
                return (row + step) % len(self.listed)
        raise NoImages(path=self._source.name(int(self.listed[0])), why=f"no image of {self.name} can be read")

    def _decode(self, items: IntArray) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Pixels and target planes [n, C + planes, H, W], and whether each could be read; failures are logged."""
        channels, size = self._source.channels, self._size
        pixels = np.zeros((len(items), channels + self.targets.planes, size, size), dtype=np.uint8)
        resize = resize_square if self.targets.stretch else resize_and_crop
        failures: list[tuple[int, StillroomError]] = []

        def decode_item(i: int) -> bool:
            item = int(items[i])
            if item in self._bad_image_log.bad:
                return False
            name = self._source.name(item)
            try:
                image = to_pixels(self._source.read(item), channels=channels, max_pixels=self.max_pixels, name=name)
                pixels[i, channels:] = self.targets.read_planes(item, shape=image.shape[:2], size=size)
            except StillroomError as failure:
                raise_if_unsafe(failure)
                failures.append((item, failure))
                return False
            pixels[i, :channels] = resize(image, size=size).transpose(2, 0, 1)
            return True

        good = np.array(thread_map(decode_item, range(len(items))), dtype=bool)
        self._bad_image_log.add(self.name, failures)
        return pixels, good

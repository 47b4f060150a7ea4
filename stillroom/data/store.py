"""The decoded images of a split: in memory where they fit, decoded on request where they don't.

A split is read when somebody uses it, not before, so the test split stays closed until the end. An image that can't
be read is replaced in train and val by the next readable one of the split, with that one's label and number: the batch
keeps its size, and the n-th batch stays a pure function of n. In test it is left out. All are listed in bad_files.csv.
"""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, fields
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillroom.data.decode import resize_and_crop, resize_square, to_pixels
from stillroom.data.errors import NoImages, TooManyBadImages
from stillroom.data.sources.source import Numbers, Source
from stillroom.data.targets.build import build_targets
from stillroom.data.targets.target import Target, Targets
from stillroom.data.threads import thread_map
from stillroom.errors import SecurityError, StillroomError
from stillroom.io.files import write_file


@dataclass(frozen=True, kw_only=True)
class BadImage:
    """An image that can't be used: where it is and why."""

    split: str
    item: int
    path: str
    code: str
    why: str


class BadImageLog:
    """The bad images of a data set, and the limit on them.

    Args:
        total: how many images there are.
        max_bad: the largest share of them that may be bad.
        report: the folder for bad_files.csv, or None.
    """

    def __init__(self, *, total: int, max_bad: float, report: Path | None):
        self.total, self.max_bad = total, max_bad
        self.path = None if report is None else Path(report) / "bad_files.csv"
        self.bad: dict[int, BadImage] = {}
        self._lock = threading.Lock()

    def add(self, split: str, failures: Iterable[tuple[int, StillroomError]]) -> None:
        """Notes images of a split as bad and writes the list.

        Raises:
            TooManyBadImages: SR-D107, there are more than the limit now.
        """
        with self._lock:
            before = len(self.bad)
            for item, failure in failures:
                path = str(failure.values.get("path", item))
                why = f"{failure.what.split('   ')[0]}: {failure.why}"
                self.bad.setdefault(item, BadImage(split=split, item=item, path=path, code=failure.code, why=why))
            if len(self.bad) == before:
                return
            self._write()
        if len(self.bad) > self.max_bad * self.total:
            first = "\n         ".join(f"{bad.code} {bad.path}: {bad.why}" for bad in list(self.bad.values())[:3])
            listed = "the files named above" if self.path is None else str(self.path)
            raise TooManyBadImages(count=len(self.bad), total=self.total, limit=self.max_bad, first=first, csv=listed)

    def _write(self) -> None:
        if self.path is None:
            return
        text = StringIO(newline="")
        table = csv.writer(text)
        table.writerow(field.name for field in fields(BadImage))
        table.writerows(astuple(self.bad[item]) for item in sorted(self.bad))
        write_file(self.path, text.getvalue())


def raise_if_unsafe(failure: StillroomError) -> None:
    """Raises what is an attack rather than a bad image: that is never just left out."""
    if isinstance(failure, SecurityError):
        raise failure


class Split:
    """One split's images, [C, H, W] uint8 each, and what is known of them.

    Args:
        name: "train", "val" or "test".
        listed: item numbers of the source, before anything was read.
        source: where they are read.
        size: H = W.
        max_pixels: of the decode rule.
        memory: whether the decoded images are kept.
        ledger: where bad images are noted.
        targets: what is known of the images; None: what the source says.
    """

    def __init__(
        self,
        *,
        name: str,
        listed: Numbers,
        source: Source,
        size: int,
        max_pixels: int,
        memory: bool,
        bad_image_log: BadImageLog,
        targets: Targets | None = None,
    ):
        self.name, self.listed, self.memory, self.max_pixels = name, listed, memory, max_pixels
        self.targets = build_targets(source) if targets is None else targets
        self._source, self._size, self._ledger = source, size, bad_image_log
        self._items = listed.copy()
        self._kept: NDArray[np.uint8] | None = None
        self._ready = False
        self._lock = threading.RLock()

    def __len__(self) -> int:
        if self.name == "test":
            self._prepare()
        return len(self._items)

    @property
    def items(self) -> Numbers:
        """[n] the source's number of each row; a replaced row has that of its replacement."""
        self._prepare()
        return self._items

    @property
    def labels(self) -> Numbers:
        """[n] what the source calls labels: the classes, where the images have one each."""
        return self._source.labels[self.items]

    def name_of(self, item: int) -> str:
        """What the source calls an item."""
        return self._source.name(item)

    def images(self, rows: Numbers) -> Tensor:
        """[len(rows), C, H, W] uint8."""
        return self.take(rows)[0]

    def take(self, rows: Numbers) -> tuple[Tensor, Target, Numbers]:
        """Images [n, C, H, W] uint8 with their target (see `stillroom.types.TargetKind`) and item numbers [n].

        Raises:
            TooManyBadImages: SR-D107, more bad images than allowed.
        """
        self._prepare()
        kept = self._kept[rows] if self._kept is not None else self._read_or_replace(np.asarray(rows))
        items = self._items[rows]
        channels = self._source.channels
        images = np.ascontiguousarray(kept[:, :channels])
        return torch.from_numpy(images), self.targets.take(items, kept[:, channels:]), items

    def _prepare(self) -> None:
        """On first use: decodes all that is kept, and for test finds out what can be read."""
        with self._lock:
            if self._ready:
                return
            if self.memory:
                self._kept, good = self._decode(self._items)
                self._settle(good)
            elif self.name == "test":
                starts = range(0, len(self._items), 256)  # the pixels themselves are let go at once
                good = np.concatenate([self._decode(self._items[start : start + 256])[1] for start in starts])
                self._items = self._items[good]
            self._ready = True

    def _settle(self, good: NDArray[np.bool_]) -> None:
        assert self._kept is not None
        if good.all():
            return
        if self.name == "test":
            rows = np.flatnonzero(good)
        else:
            rows = np.array([self._next(row, good.__getitem__) for row in range(len(good))])
        self._kept, self._items = self._kept[rows], self._items[rows]

    def _read_or_replace(self, rows: Numbers) -> NDArray[np.uint8]:
        images, good = self._decode(self._items[rows])
        for place in np.flatnonzero(~good):
            found = self._next(int(rows[place]), lambda row: self._try(row, images[place]))  # noqa: B023 - called at once
            with self._lock:
                self._items[rows[place]] = self.listed[found]
        return images

    def _try(self, row: int, out: NDArray[np.uint8]) -> bool:
        image, good = self._decode(self.listed[row : row + 1])
        out[:] = image[0]
        return bool(good[0])

    def _next(self, row: int, good: Callable[[int], bool]) -> int:
        """The first row from `row` on, around the end, that is good."""
        for step in range(len(self.listed)):
            if good((row + step) % len(self.listed)):
                return (row + step) % len(self.listed)
        raise NoImages(path=self._source.name(int(self.listed[0])), why=f"none in {self.name} can be read")

    def _decode(self, items: Numbers) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Images [n, C + planes, H, W] and whether each could be read; what could not goes into the ledger."""
        channels, size = self._source.channels, self._size
        images = np.zeros((len(items), channels + self.targets.planes, size, size), dtype=np.uint8)
        shaped = resize_square if self.targets.stretch else resize_and_crop
        failures: list[tuple[int, StillroomError]] = []

        def one(place: int) -> bool:
            item = int(items[place])
            if item in self._ledger.bad:
                return False
            name = self._source.name(item)
            try:
                image = to_pixels(self._source.read(item), channels=channels, max_pixels=self.max_pixels, name=name)
                images[place, channels:] = self.targets.read_planes(item, shape=image.shape[:2], size=size)
            except StillroomError as failure:
                raise_if_unsafe(failure)
                failures.append((item, failure))
                return False
            images[place, :channels] = shaped(image, size=size).transpose(2, 0, 1)
            return True

        good = np.array(thread_map(one, range(len(items))), dtype=bool)
        self._ledger.add(self.name, failures)
        return images, good

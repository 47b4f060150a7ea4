"""The MNIST family: `train-images-idx3-ubyte` and its three sisters, gzipped or not, in one folder.

Format: two zero bytes, 8 for unsigned bytes, the number of dimensions, then each dimension as a big-endian 32-bit
number, then the values. https://yann.lecun.org/exdb/mnist/
"""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stillroom.data.errors import UnknownLayout
from stillroom.data.sources._errors import DataPermissionDenied, InvalidIdx
from stillroom.data.sources.source import Numbers, existing_path, printable
from stillroom.errors import StillroomError

NAME = re.compile(r"^(?:.*-)?(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?$")
FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


class Idx:
    """Grey images in idx files; `train` becomes the train split, `t10k` or `test` the test split.

    Args:
        path: the folder.
        classes: names in the order of the labels; None: Fashion-MNIST's where "fashion" is in the folder's name, else
            numbers.

    Raises:
        StillroomError: SR-D101 no such folder, SR-D109 no such files in it, SR-D116 a file is not what it says.
    """

    channels = 1

    def __init__(self, *, path: str, classes: tuple[str, ...] | None = None):
        self.path = path
        found = _files(existing_path(path))
        if not any(what == "images" for _, what in found):
            raise UnknownLayout(path=printable(path), why="there is no file like train-images-idx3-ubyte in it")
        self._images: list[NDArray[np.uint8]] = []
        self._places: list[tuple[str, int, int]] = []
        self.splits: dict[str, Numbers] = {}
        labels = []
        for split in sorted({split for split, _ in found}, reverse=True):  # train before test
            images, names = self._pair(found, split)
            part = len(self._images)
            start = len(self._places)
            self._images.append(images)
            self._places += [(found[split, "images"].name, part, row) for row in range(len(images))]
            self.splits[split] = np.arange(start, start + len(images))
            labels.append(names)
        self.labels: Numbers = np.concatenate(labels).astype(np.int64)
        self.classes = tuple(classes) if classes else self._names()

    @staticmethod
    def matches(path: Path) -> bool:
        """Whether the folder holds idx images."""
        return path.is_dir() and any(what == "images" for _, what in _files(path))

    def name(self, item: int) -> str:
        """`FOLDER/train-images-idx3-ubyte.gz[17]`."""
        file, _, row = self._places[item]
        return printable(f"{os.path.join(self.path, file)}[{row}]")

    def read(self, item: int) -> NDArray[np.uint8]:
        """[H, W]."""
        _, part, row = self._places[item]
        return self._images[part][row]

    def _pair(self, found: dict[tuple[str, str], Path], split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        for what in ("images", "labels"):
            if (split, what) not in found:
                why = f"the {split} split has no file of {what}"
                raise UnknownLayout(path=printable(self.path), why=why)
        images, labels = _read(found[split, "images"], dimensions=3), _read(found[split, "labels"], dimensions=1)
        if len(images) != len(labels):
            why = f"{len(labels)} labels for {len(images)} images"
            raise InvalidIdx(path=printable(str(found[split, "labels"])), why=why)
        return images, labels

    def _names(self) -> tuple[str, ...]:
        count = int(self.labels.max()) + 1
        fashion = "fashion" in os.path.basename(os.path.abspath(self.path)).lower() and count == len(FASHION)
        return FASHION if fashion else tuple(str(number) for number in range(count))


def _files(folder: Path) -> dict[tuple[str, str], Path]:
    """(split, "images" or "labels") -> file; the unpacked one where both are there."""
    found: dict[tuple[str, str], Path] = {}
    if not folder.is_dir():
        return found
    for file in sorted(folder.iterdir(), reverse=True):  # x.gz before x, which then takes its place
        if match := NAME.match(file.name):
            found["train" if match[1] == "train" else "test", match[2]] = file
    return found


def _read(file: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """The values of an idx file. Reads no more than its header promises, whatever a gz may unpack to."""

    def refuse(why: str) -> StillroomError:
        return InvalidIdx(path=printable(str(file)), why=why)

    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            start = stream.read(4 + 4 * dimensions)
            if len(start) < 4 + 4 * dimensions or start[:4] != bytes([0, 0, 8, dimensions]):
                raise refuse(f"it starts with {start[:4].hex(' ')}, not with 00 00 08 0{dimensions}")
            shape = struct.unpack(f">{dimensions}I", start[4:])
            values = stream.read(math.prod(shape) + 1)
    except PermissionError as problem:
        raise DataPermissionDenied(path=printable(str(file))) from problem
    except (OSError, EOFError, zlib.error) as problem:
        raise refuse(f"unpacking it failed: {problem}") from problem
    except (OverflowError, MemoryError) as problem:
        raise refuse("its header promises more than fits into memory") from problem
    if len(values) != math.prod(shape) or not values:
        there = "more" if len(values) > math.prod(shape) else f"{len(values)}"
        raise refuse(f"its header promises {' × '.join(map(str, shape))} bytes, there are {there}")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)

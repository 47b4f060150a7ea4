"""MNIST's idx format: `train-images-idx3-ubyte` and the three related files, gzipped or not, in one folder.

Format: two zero bytes, 8 for unsigned bytes, the number of dimensions, then each dimension as a big-endian 32-bit
integer, then the values. https://yann.lecun.org/exdb/mnist/
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
from stillroom.data.sources._paths import existing_path, printable
from stillroom.errors import StillroomError
from stillroom.types import IntArray

NAME = re.compile(r"^(?:.*-)?(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?$")
FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


class Idx:
    """Grey images in idx files; `train` becomes the train split, `t10k` or `test` the test split.

    Args:
        path: the folder.
        classes: names in label order; None: Fashion-MNIST's names if the folder's name contains "fashion", else the
            labels themselves.

    Raises:
        StillroomError: SR-D101 no such folder, SR-D109 no such files in it, SR-D116 a file is not what it says.
    """

    channels = 1

    def __init__(self, *, path: str, classes: tuple[str, ...] | None = None):
        self.path = path
        found = _files(existing_path(path))
        if not any(content == "images" for _, content in found):
            raise UnknownLayout(path=printable(path), why="there is no file like train-images-idx3-ubyte in it")
        self._images: list[NDArray[np.uint8]] = []
        self._rows: list[tuple[str, int, int]] = []  # by item: file name, index in _images, row of the file
        self.splits: dict[str, IntArray] = {}
        labels = []
        for split in sorted({split for split, _ in found}, reverse=True):  # train before test
            images, split_labels = self._read_split(found, split)
            file = len(self._images)
            start = len(self._rows)
            self._images.append(images)
            self._rows += [(found[split, "images"].name, file, row) for row in range(len(images))]
            self.splits[split] = np.arange(start, start + len(images))
            labels.append(split_labels)
        self.labels: IntArray = np.concatenate(labels).astype(np.int64)
        self.classes = tuple(classes) if classes else self._default_names()

    @staticmethod
    def matches(path: Path) -> bool:
        """Whether the folder contains idx images."""
        return path.is_dir() and any(content == "images" for _, content in _files(path))

    def name(self, item: int) -> str:
        """`FOLDER/train-images-idx3-ubyte.gz[17]`."""
        file_name, _, row = self._rows[item]
        return printable(f"{os.path.join(self.path, file_name)}[{row}]")

    def read(self, item: int) -> NDArray[np.uint8]:
        """[H, W]."""
        _, file, row = self._rows[item]
        return self._images[file][row]

    def _read_split(
        self, found: dict[tuple[str, str], Path], split: str
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        for content in ("images", "labels"):
            if (split, content) not in found:
                why = f"the {split} split has no file of {content}"
                raise UnknownLayout(path=printable(self.path), why=why)
        images, labels = _read(found[split, "images"], dimensions=3), _read(found[split, "labels"], dimensions=1)
        if len(images) != len(labels):
            why = f"{len(labels)} labels for {len(images)} images"
            raise InvalidIdx(path=printable(str(found[split, "labels"])), why=why)
        return images, labels

    def _default_names(self) -> tuple[str, ...]:
        count = int(self.labels.max()) + 1
        fashion = "fashion" in os.path.basename(os.path.abspath(self.path)).lower() and count == len(FASHION)
        return FASHION if fashion else tuple(str(label) for label in range(count))


def _files(folder: Path) -> dict[tuple[str, str], Path]:
    """(split, "images" or "labels") -> file; the uncompressed one if there are both."""
    found: dict[tuple[str, str], Path] = {}
    if not folder.is_dir():
        return found
    for file in sorted(folder.iterdir(), reverse=True):  # x.gz before x, which then replaces it
        if match := NAME.match(file.name):
            found["train" if match[1] == "train" else "test", match[2]] = file
    return found


def _read(file: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """The values of an idx file. Reads no more bytes than its header declares, to be safe from gzip bombs."""

    def invalid(why: str) -> StillroomError:
        return InvalidIdx(path=printable(str(file)), why=why)

    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            start = stream.read(4 + 4 * dimensions)
            if len(start) < 4 + 4 * dimensions or start[:4] != bytes([0, 0, 8, dimensions]):
                raise invalid(f"it starts with {start[:4].hex(' ')}, not with 00 00 08 0{dimensions}")
            shape = struct.unpack(f">{dimensions}I", start[4:])
            values = stream.read(math.prod(shape) + 1)
    except PermissionError as problem:
        raise DataPermissionDenied(path=printable(str(file))) from problem
    except (OSError, EOFError, zlib.error) as problem:
        raise invalid(f"unpacking it failed: {problem}") from problem
    except (OverflowError, MemoryError) as problem:
        raise invalid("its header declares more data than fits into memory") from problem
    if len(values) != math.prod(shape) or not values:
        actual = "more" if len(values) > math.prod(shape) else f"{len(values)}"
        raise invalid(f"its header declares {' × '.join(map(str, shape))} bytes, there are {actual}")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)

"""A folder of unlabelled images: `**/*.jpg`, or `{train,val,test}/**/*.jpg`.

If there is a folder `train`, the data is split and only split folders are read; `val` may also be called `valid` or
`validation`. Other folder names have no meaning. A student can be trained on the outputs or features of a teacher; the
reported results are then its agreement with the teacher.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from stillroom.data.errors import NoImages, UnknownLayout
from stillroom.data.sources._files import ImageFiles, images_below
from stillroom.data.sources._paths import existing_path, printable
from stillroom.data.sources._splits import split_folders, visible_entries
from stillroom.data.sources.source import detect_channels
from stillroom.types import IntArray


class Images:
    """Images without labels: every label is -1.

    Args:
        path: the folder.
        classes: names of the teacher's outputs, in order; by default their indices.
        allow_outside: whether links may lead out of the folder.
        channels: 1 or 3; None: 1 if a sample of a hundred images is grey, else 3.

    Raises:
        StillroomError: SR-D101 no such folder, SR-D108 no images, SR-D109 it is a file, SR-S201 a link leads outside.
    """

    def __init__(
        self, *, path: str, classes: tuple[str, ...] = (), allow_outside: bool = False, channels: int | None = None
    ):
        self.path, self.allow_outside = path, allow_outside
        self.classes = tuple(classes)
        root = os.fspath(existing_path(path))
        if not os.path.isdir(root):
            raise UnknownLayout(path=printable(path), why="it is a file, not a folder")
        found = {split: images_below(folder) for split, folder in split_folders(root).items()}
        paths = [file for files in found.values() for file in files]
        if not paths:
            raise NoImages(path=printable(path), why="no file in it has the suffix of an image")
        self._files = ImageFiles(paths, [None if allow_outside else os.path.realpath(root)] * len(paths))
        ends = np.cumsum([0, *(len(files) for files in found.values())])
        ranges = zip(found, ends, ends[1:], strict=False)
        self.splits: dict[str, IntArray] = {split: np.arange(start, end) for split, start, end in ranges if split}
        self.labels: IntArray = np.full(len(paths), -1, dtype=np.int64)
        self.channels = channels or detect_channels(self.read, self.splits.get("train", np.arange(len(paths))))

    @staticmethod
    def matches(path: Path) -> bool:
        """Whether images lie directly in the folder or its split folders, and subfolders contain none."""
        if not path.is_dir():
            return False
        folders = split_folders(os.fspath(path)).values()
        subfolders = [entry.path for folder in folders for entry in visible_entries(folder) if entry.is_dir()]
        return any(map(images_below, folders)) and not any(map(images_below, subfolders))

    def name(self, item: int) -> str:
        """The image's path."""
        return self._files.name(item)

    def read(self, item: int) -> bytes:
        """The image file's bytes."""
        return self._files.read(item)

"""A folder of class folders: `CLASS/**/*.jpg`, or `{train,val,test}/CLASS/**/*.jpg`.

If there is a folder `train`, the data is split and only split folders are read; `val` may also be called `valid` or
`validation`. Classes are the subfolders of train, sorted by name. A class may be missing from val or test (`inspect`
reports it); a class with images in val or test but none in train is an error, as it is nearly always a misspelling.
Hidden files and files without an image suffix are ignored and counted in `ignored`.

Unlabelled images may lie in any folder: they get the label -1 and are used for training only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stillroom.data.decode import SUFFIXES
from stillroom.data.errors import NoImages, UnknownLayout
from stillroom.data.sources._errors import ClassNotInTrain, DataPermissionDenied
from stillroom.data.sources._files import unlabelled_images
from stillroom.data.sources._paths import existing_path, printable, read_file, require_inside
from stillroom.data.sources._splits import split_folders, visible_entries
from stillroom.data.sources.source import detect_channels
from stillroom.types import IntArray


class Folder:
    """Images in class folders.

    Args:
        path: the folder.
        unlabelled: one or more folders of unlabelled images; absolute, relative to `path`, or relative to the working
            directory. Subfolders are included. A folder beside the class folders is not a class then.
        allow_outside: whether links may lead out of the folders.
        channels: 1 or 3; None: 1 if a sample of a hundred images is grey, else 3.

    Raises:
        StillroomError: SR-D101 no such folder, SR-D108 no images, SR-D109 no class folders, SR-D114 unknown class,
            SR-S201 a link leads outside.
    """

    def __init__(
        self,
        *,
        path: str,
        unlabelled: str | tuple[str, ...] = (),
        allow_outside: bool = False,
        channels: int | None = None,
    ):
        self.path, self.unlabelled, self.allow_outside = path, unlabelled, allow_outside
        self.ignored = 0
        folder = existing_path(path)
        self._root = os.path.realpath(folder)
        if not os.path.isdir(self._root):
            raise UnknownLayout(path=printable(path), why="it is a file, not a folder")
        self._unlabelled = unlabelled_images(unlabelled, below=str(folder), allow_outside=allow_outside)
        found = {split: self._classes(subfolder) for split, subfolder in split_folders(self._root).items()}
        self._check_not_empty(found)
        first = "train" if "train" in found else ""
        names = sorted(found[first])
        self._check_classes(found, names)
        self.classes = tuple(printable(name) for name in names)
        self._files: list[str] = []
        labels: list[int] = []
        self.splits: dict[str, IntArray] = {}
        for split, classes in found.items():
            start = len(labels)
            for name in sorted(set(classes) & set(names)):
                self._files += classes[name]
                labels += [names.index(name)] * len(classes[name])
            if split:
                self.splits[split] = np.arange(start, len(labels))
        self.num_unlabelled = len(self._unlabelled)
        self.labels: IntArray = np.array(labels + [-1] * self.num_unlabelled, dtype=np.int64)
        self.channels = channels or detect_channels(self.read, self.splits.get("train", np.arange(len(self._files))))

    @staticmethod
    def matches(path: Path) -> bool:
        """Whether the folder contains folders with images."""
        if not path.is_dir():
            return False
        entries = [entry for parent in split_folders(str(path)).values() for entry in visible_entries(parent)]
        return any(entry.is_dir() and _contains_image(entry.path) for entry in entries)

    def name(self, item: int) -> str:
        """The path, including `path` or the folder of unlabelled images."""
        if item >= len(self._files):
            return self._unlabelled.name(item - len(self._files))
        return printable(os.path.join(self.path, self._files[item]))

    def read(self, item: int) -> bytes:
        """The file's bytes."""
        if item >= len(self._files):
            return self._unlabelled.read(item - len(self._files))
        return read_file(os.path.join(self._root, self._files[item]), name=self.name(item))

    def _classes(self, folder: str) -> dict[str, list[str]]:
        """Class name -> sorted paths of its images, relative to the root."""
        classes = {}
        for entry in visible_entries(folder):
            if not entry.is_dir():
                self.ignored += 1
                continue
            if os.path.realpath(entry.path) in self._unlabelled.folders:
                continue
            self._check_link(entry)
            classes[entry.name] = sorted(self._images(entry.path, parents=frozenset()))
        return classes

    def _images(self, folder: str, *, parents: frozenset[str]) -> Iterator[str]:
        real = os.path.realpath(folder)
        if real in parents:  # a link to a parent folder, which would be followed forever
            return
        try:
            found = visible_entries(folder)
        except PermissionError as problem:
            raise DataPermissionDenied(path=printable(folder)) from problem
        for entry in found:
            if entry.is_dir():
                self._check_link(entry)
                yield from self._images(entry.path, parents=parents | {real})
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                self._check_link(entry)
                yield os.path.relpath(entry.path, self._root)
            else:
                self.ignored += 1

    def _check_link(self, entry: os.DirEntry[str]) -> None:
        if entry.is_symlink() and not self.allow_outside:
            require_inside(entry.path, root=self._root, shown=printable(entry.path))

    def _check_not_empty(self, found: dict[str, dict[str, list[str]]]) -> None:
        images = sum(len(files) for classes in found.values() for files in classes.values())
        folders = sum(len(classes) for classes in found.values())
        if not folders:
            why = f"there are {self.ignored} file(s) but no class folders in {', '.join(s or 'it' for s in found)}"
            raise UnknownLayout(path=printable(self.path), why=why)
        if not images:
            why = f"{folders} class folder(s), {self.ignored} other file(s), none with the suffix of an image"
            raise NoImages(path=printable(self.path), why=why)

    def _check_classes(self, found: dict[str, dict[str, list[str]]], known: list[str]) -> None:
        for split, classes in found.items():
            for name, files in classes.items():
                if files and name not in known:
                    values = {"name": printable(name), "split": split, "images": len(files)}
                    known_names = printable(", ".join(known))
                    raise ClassNotInTrain(path=printable(self.path), known=known_names, **values)


def _contains_image(folder: str) -> bool:
    names = (name for _, _, files in os.walk(folder) for name in files)
    return any(os.path.splitext(name)[1].lower() in SUFFIXES for name in names)

"""Boxes in COCO's json: one file, or one for each split.

Format: https://cocodataset.org/#format-data. Read are `images` (id, file_name, width, height), `annotations` (image_id,
category_id, bbox, iscrowd) and `categories` (id, name); `bbox` is left, top, width, height in pixels.
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.data.sources._files import Files, folder_at, images_below
from stillroom.data.sources._noted import Note, Noted
from stillroom.data.sources._splits import ORDER, SPLITS
from stillroom.data.sources.source import Boxes, existing, peek_channels, printable, read_file
from stillroom.errors import Failure

SNIFFED = 2**16
LONGEST = 2**31
BESIDE = ("", "images", "JPEGImages", "{split}", "{split}2017", "{split}2014", "images/{split}", "images/{split}2017")


class Coco:
    """Images with boxes, listed in json files.

    Which split a file is for is told by its name, or else its folder's: `train`, `val` (`valid`, `validation`) or
    `test` among the words of it, as in instances_val2017.json. Files of no split are left alone where others have one.
    Classes are the categories of all files, in the order of their ids, which may have gaps.

    Args:
        path: a json file, or a folder with some, in it or in a folder of it such as `annotations`.
        images: the folder of the images, absolute or below the data's; None tries what is usual beside each file:
            images, JPEGImages, train, train2017 and so on, and takes the first that holds the file's first image.
        unlabelled: a folder of further images for training, which nobody has looked for objects in.
        allow_outside: whether images may lie outside of these folders.
        channels: 1 or 3; None looks at a hundred images, and takes 1 if all of them are grey.

    Raises:
        Failure: SR-D101 no such file or folder, SR-D108 no images, SR-D109 no json, SR-D120 it is not what COCO's
            format asks for, SR-S201 an image lies outside.
    """

    kind = "boxes"

    def __init__(
        self,
        *,
        path: str,
        images: str | None = None,
        unlabelled: str | None = None,
        allow_outside: bool = False,
        channels: int | None = None,
    ):
        self.path, self.images, self.unlabelled, self.allow_outside = path, images, unlabelled, allow_outside
        found = existing(path)
        files = {found: ""} if found.is_file() else _jsons(found)
        if not files:
            raise Failure("SR-D109", path=printable(path), why="there is no json file with COCO's keys in it")
        read = {file: _read(file) for file in files}
        categories = _categories(read)
        self.classes = tuple(categories.values())
        places = {number: place for place, number in enumerate(categories)}
        below = str(found if found.is_dir() else found.parent)
        notes: list[Note] = []
        roots: list[str] = []
        for file, content in read.items():
            folder = folder_at(images, below=below) if images else _images_of(file, files[file], content)
            notes += _notes(file, content, folder=folder, split=files[file], places=places)
            roots += [os.path.realpath(folder)] * (len(notes) - len(roots))
        if not notes:
            raise Failure("SR-D108", path=printable(path), why="the list of images is empty")
        self._add_files(notes, roots, below)
        self.channels = channels or peek_channels(self.read, self.splits.get("train", np.arange(len(notes))))

    def _add_files(self, notes: list[Note], roots: list[str], below: str) -> None:
        folder = folder_at(self.unlabelled, below=below) if self.unlabelled else None
        further = images_below(folder) if folder else []
        roots += [os.path.realpath(folder)] * len(further) if folder else []
        paths = [note.path for note in notes] + further
        self._files = Files(paths, [None] * len(paths) if self.allow_outside else roots)
        self._noted = Noted(notes, self._files, len(self.classes))
        self.labels, self.splits, self.further = self._noted.labels, self._noted.splits, self._noted.further

    @staticmethod
    def fits(path: Path) -> bool:
        """Whether it is such a file, or a folder with some."""
        return bool(_jsons(path))

    def name(self, item: int) -> str:
        """The image's path."""
        return self._files.name(item)

    def read(self, item: int) -> bytes:
        """The image file's bytes."""
        return self._files.read(item)

    def boxes(self, item: int) -> Boxes:
        """The image's boxes."""
        return self._noted.boxes(item)


def _jsons(path: Path) -> dict[Path, str]:
    """The json files with COCO's keys -> their split, or "" where none of them has one."""
    if path.is_file():
        return {path: ""} if _looks_like(path) else {}
    if not path.is_dir():
        return {}
    near = [*path.glob("*.json"), *path.glob("*/*.json")]
    found = {
        file: _split_of(file, path) for file in sorted(near) if not file.name.startswith(".") and _looks_like(file)
    }
    instances = {file: split for file, split in found.items() if "instances" in file.name}
    found = instances or found  # COCO's own folder holds captions and keypoints of the same images too
    named = sorted(((file, split) for file, split in found.items() if split), key=lambda pair: ORDER.index(pair[1]))
    return dict(named) or found


def _looks_like(file: Path) -> bool:
    """Whether one of COCO's keys is near the start of the file."""
    if file.suffix.lower() != ".json" or not file.is_file():
        return False
    try:
        with file.open("rb") as stream:
            start = stream.read(SNIFFED)
    except OSError:
        return False
    begins = start.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"{"
    return begins and any(key in start for key in (b'"images"', b'"annotations"', b'"categories"'))


def _split_of(file: Path, root: Path) -> str:
    for text in (file.stem, file.parent.name if file.parent != root else ""):
        words = "".join(letter if letter.isalpha() else " " for letter in text.lower()).split()
        for word in words:
            if word in SPLITS:
                return SPLITS[word]
    return ""


def _read(file: Path) -> dict[str, Any]:
    """The file's content, its outline checked."""
    try:
        content = json.loads(read_file(str(file), name=printable(str(file))))
    except (ValueError, RecursionError) as problem:
        raise _refuse(file, f"it is not json: {problem}") from problem
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise _refuse(file, f"there is no list called {key!r} in it")
        if not all(isinstance(entry, dict) for entry in content[key]):
            raise _refuse(file, f"an entry of {key!r} is not an object")
    return content


def _categories(read: Mapping[Path, dict[str, Any]]) -> dict[int, str]:
    """Category id -> name, in the order of the ids."""
    names: dict[int, str] = {}
    for file, content in read.items():
        for category in content["categories"]:
            number = _number(file, category, "id", "category")
            name = str(category.get("name", number)).encode(errors="backslashreplace").decode()
            if names.setdefault(number, name) != name:
                raise _refuse(file, f"category {number} is {name!r} here and {names[number]!r} in another file")
    if not names:
        raise _refuse(next(iter(read)), "there are no categories in it")
    return dict(sorted(names.items()))


def _images_of(file: Path, split: str, content: dict[str, Any]) -> str:
    """The folder beside the file that holds its first image."""
    parents = (file.parent, file.parent.parent) if file.parent.name.lower() == "annotations" else (file.parent,)
    stems = {"train": ["train"], "val": ["val", "valid", "validation"], "test": ["test"], "": [file.stem]}[split]
    folders = [parent / place.format(split=stem) for parent in parents for place in BESIDE for stem in stems]
    names = [_text(file, entry, "file_name") for entry in content["images"]]
    if not names:
        return str(file.parent)
    for name in names[:20]:  # the first may be the one that is missing
        for folder in folders:
            if (folder / name).is_file():
                return str(folder)
    tried = ", ".join(dict.fromkeys(str(folder.relative_to(parents[-1])) for folder in folders))
    raise _refuse(
        file, f"{printable(names[0])!r} is in none of the folders beside it ({tried}); name it with data.images"
    )


def _notes(file: Path, content: dict[str, Any], *, folder: str, split: str, places: dict[int, int]) -> list[Note]:
    found: dict[int, list[tuple[list[float], int, bool]]] = {}
    for entry in content["images"]:
        number = _number(file, entry, "id", "image")
        if number in found:
            raise _refuse(file, f"image {number} is there twice")
        found[number] = []
    for entry in content["annotations"]:
        number = _number(file, entry, "image_id", "annotation")
        if number not in found:
            raise _refuse(file, f"annotation {entry.get('id')} is of image {number}, which is not listed")
        label = places.get(_number(file, entry, "category_id", "annotation"), -1)
        found[number].append((_box(file, entry), label, bool(entry.get("iscrowd", 0))))
    notes = []
    for entry in content["images"]:
        boxes = found[entry["id"]]
        notes.append(
            Note(
                path=os.path.join(folder, _text(file, entry, "file_name")),
                split=split,
                boxes=np.array([box for box, _, _ in boxes], dtype=np.float64).reshape(-1, 4),
                labels=np.array([label for _, label, _ in boxes], dtype=np.int64),
                crowd=np.array([crowd for _, _, crowd in boxes], dtype=bool),
                size=_size(entry),
            )
        )
    return notes


def _box(file: Path, entry: dict[str, Any]) -> list[float]:
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(type(value) in (int, float) for value in box):
        raise _refuse(file, f"annotation {entry.get('id')} has no bbox of four numbers")
    try:
        left, top, width, height = (float(value) for value in box)
    except OverflowError as problem:  # json's whole numbers have no end
        raise _refuse(file, f"annotation {entry.get('id')}: {problem}") from problem
    return [left, top, left + width, top + height]


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    sides = (entry.get("height"), entry.get("width"))
    return sides if all(type(side) is int and 0 < side < LONGEST for side in sides) else None  # type: ignore[return-value]


def _number(file: Path, entry: dict[str, Any], key: str, what: str) -> int:
    value = entry.get(key)
    if type(value) is not int:
        raise _refuse(file, f"{what} {entry.get('id')} has {value!r} as its {key}, which is no whole number")
    return value


def _text(file: Path, entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value or "\0" in value or not _is_text(value):
        raise _refuse(file, f"image {entry.get('id')} has no {key}")
    return value


def _is_text(value: str) -> bool:
    """Whether it can be written: json may hold halves of letters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse(file: Path, why: str) -> Failure:
    return Failure("SR-D120", path=printable(str(file)), why=why)

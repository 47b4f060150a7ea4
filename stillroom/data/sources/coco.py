"""Boxes in COCO's json: one file, or one for each split.

Format: https://cocodataset.org/#format-data. Read are `images` (id, file_name, width, height), `annotations` (image_id,
category_id, bbox, iscrowd) and `categories` (id, name); `bbox` is left, top, width, height in pixels.
"""

from __future__ import annotations

import codecs
import os
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.data.errors import NoImages, UnknownLayout
from stillroom.data.sources._box_source import AnnotatedImage, BoxSource
from stillroom.data.sources._coco_json import coco_error, read_categories, read_images, read_json, text_field
from stillroom.data.sources._files import resolve_folder
from stillroom.data.sources._splits import ORDER, SPLITS
from stillroom.data.sources.source import detect_channels, existing_path, printable

SNIFFED = 2**16
BESIDE = ("", "images", "JPEGImages", "{split}", "{split}2017", "{split}2014", "images/{split}", "images/{split}2017")


class Coco(BoxSource):
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
        StillroomError: SR-D101 no such file or folder, SR-D108 no images, SR-D109 no json, SR-D120 it is not what
            COCO's format asks for, SR-S201 an image lies outside.
    """

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
        found = existing_path(path)
        files = {found: ""} if found.is_file() else _jsons(found)
        if not files:
            raise UnknownLayout(path=printable(path), why="there is no json file with COCO's keys in it")
        contents = {file: read_json(file) for file in files}
        names = read_categories(contents)
        self.classes = tuple(names.values())
        places = {number: place for place, number in enumerate(names)}
        below = str(found if found.is_dir() else found.parent)
        notes: list[AnnotatedImage] = []
        roots: list[str] = []
        for file, content in contents.items():
            folder = resolve_folder(images, below=below) if images else _images_of(file, files[file], content)
            notes += read_images(file, content, folder=folder, split=files[file], places=places)
            roots += [os.path.realpath(folder)] * (len(notes) - len(roots))
        if not notes:
            raise NoImages(path=printable(path), why="the list of images is empty")
        self._hold(
            notes,
            roots,
            classes=len(self.classes),
            below=below,
            unlabelled=unlabelled,
            allow_outside=allow_outside,
        )
        self.channels = channels or detect_channels(self.read, self.splits.get("train", np.arange(len(notes))))

    @staticmethod
    def matches(path: Path) -> bool:
        """Whether it is such a file, or a folder with some."""
        return bool(_jsons(path))


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


def _images_of(file: Path, split: str, content: dict[str, Any]) -> str:
    """The folder beside the file that holds its first image."""
    parents = (file.parent, file.parent.parent) if file.parent.name.lower() == "annotations" else (file.parent,)
    stems = {"train": ["train"], "val": ["val", "valid", "validation"], "test": ["test"], "": [file.stem]}[split]
    folders = [parent / place.format(split=stem) for parent in parents for place in BESIDE for stem in stems]
    names = [text_field(file, entry, "file_name") for entry in content["images"]]
    if not names:
        return str(file.parent)
    for name in names[:20]:  # the first may be the one that is missing
        for folder in folders:
            if (folder / name).is_file():
                return str(folder)
    tried = ", ".join(dict.fromkeys(str(folder.relative_to(parents[-1])) for folder in folders))
    raise coco_error(
        file, f"{printable(names[0])!r} is in none of the folders beside it ({tried}); name it with data.images"
    )

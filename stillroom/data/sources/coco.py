"""Boxes in COCO's JSON format: one file, or one per split.

Format: https://cocodataset.org/#format-data. Used are `images` (id, file_name, width, height), `annotations` (image_id,
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
from stillroom.data.sources._paths import existing_path, printable
from stillroom.data.sources._splits import ORDER, SPLITS
from stillroom.data.sources.source import detect_channels

SNIFFED = 2**16  # bytes at the start of a file that are searched for COCO's keys
IMAGE_FOLDERS = (
    *("", "images", "JPEGImages", "{split}", "{split}2017", "{split}2014", "images/{split}", "images/{split}2017"),
)


class Coco(BoxSource):
    """Images with boxes, listed in JSON files.

    The split of a file is taken from its name, or else from its folder's name: `train`, `val` (`valid`, `validation`)
    or `test` as one of the words, as in instances_val2017.json. Files without a split are ignored if others have one.
    Classes are the categories of all files, in order of their ids, which may have gaps.

    Args:
        path: a JSON file, or a folder that contains some, directly or in a subfolder such as `annotations`.
        images: the folder of the images, absolute or relative to the data's folder; None: the first of the usual
            folders beside each file (images, JPEGImages, train, train2017 and so on) that contains the file's first
            image.
        unlabelled: a folder of further, unannotated images for training.
        allow_outside: whether images may lie outside of these folders.
        channels: 1 or 3; None: 1 if a sample of a hundred images is grey, else 3.

    Raises:
        StillroomError: SR-D101 no such file or folder, SR-D108 no images, SR-D109 no JSON file, SR-D120 not valid in
            COCO's format, SR-S201 an image lies outside.
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
        files = {found: ""} if found.is_file() else _coco_files(found)
        if not files:
            raise UnknownLayout(path=printable(path), why="there is no JSON file with COCO's keys in it")
        contents = {file: read_json(file) for file in files}
        names = read_categories(contents)
        self.classes = tuple(names.values())
        label_of = {category: label for label, category in enumerate(names)}
        below = str(found if found.is_dir() else found.parent)
        annotated: list[AnnotatedImage] = []
        roots: list[str] = []
        for file, content in contents.items():
            folder = resolve_folder(images, below=below) if images else _image_folder(file, files[file], content)
            annotated += read_images(file, content, folder=folder, split=files[file], label_of=label_of)
            roots += [os.path.realpath(folder)] * (len(annotated) - len(roots))
        if not annotated:
            raise NoImages(path=printable(path), why="the list of images is empty")
        self._set_images(
            annotated,
            roots,
            classes=len(self.classes),
            below=below,
            unlabelled=unlabelled,
            allow_outside=allow_outside,
        )
        self.channels = channels or detect_channels(self.read, self.splits.get("train", np.arange(len(annotated))))

    @staticmethod
    def matches(path: Path) -> bool:
        """Whether it is a COCO file, or a folder that contains some."""
        return bool(_coco_files(path))


def _coco_files(path: Path) -> dict[Path, str]:
    """JSON files with COCO's keys -> their split, or "" if none of them has one."""
    if path.is_file():
        return {path: ""} if _is_coco(path) else {}
    if not path.is_dir():
        return {}
    candidates = [*path.glob("*.json"), *path.glob("*/*.json")]
    found = {
        file: _split_of(file, path) for file in sorted(candidates) if not file.name.startswith(".") and _is_coco(file)
    }
    instances = {file: split for file, split in found.items() if "instances" in file.name}
    found = instances or found  # COCO's own folder also contains captions and keypoints of the same images
    with_split = sorted(
        ((file, split) for file, split in found.items() if split), key=lambda pair: ORDER.index(pair[1])
    )
    return dict(with_split) or found


def _is_coco(file: Path) -> bool:
    """Whether one of COCO's keys occurs near the start of the file."""
    if file.suffix.lower() != ".json" or not file.is_file():
        return False
    try:
        with file.open("rb") as stream:
            start = stream.read(SNIFFED)
    except OSError:
        return False
    is_object = start.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"{"
    return is_object and any(key in start for key in (b'"images"', b'"annotations"', b'"categories"'))


def _split_of(file: Path, root: Path) -> str:
    for text in (file.stem, file.parent.name if file.parent != root else ""):
        words = "".join(letter if letter.isalpha() else " " for letter in text.lower()).split()
        for word in words:
            if word in SPLITS:
                return SPLITS[word]
    return ""


def _image_folder(file: Path, split: str, content: dict[str, Any]) -> str:
    """The usual folder beside the file that contains its first image."""
    parents = (file.parent, file.parent.parent) if file.parent.name.lower() == "annotations" else (file.parent,)
    stems = {"train": ["train"], "val": ["val", "valid", "validation"], "test": ["test"], "": [file.stem]}[split]
    folders = [parent / name.format(split=stem) for parent in parents for name in IMAGE_FOLDERS for stem in stems]
    names = [text_field(file, entry, "file_name") for entry in content["images"]]
    if not names:
        return str(file.parent)
    for name in names[:20]:  # more than one, because the first image may be missing
        for folder in folders:
            if (folder / name).is_file():
                return str(folder)
    tried = ", ".join(dict.fromkeys(str(folder.relative_to(parents[-1])) for folder in folders))
    raise coco_error(
        file, f"{printable(names[0])!r} is in none of the folders beside it ({tried}); name it with data.images"
    )

"""Boxes in Pascal VOC's xml: one file an image.

Layout: `Annotations/*.xml`, `JPEGImages/*`, and the splits in `ImageSets/Main/{train,val,test}.txt` where they are.
Everingham et al., The PASCAL Visual Object Classes Challenge: http://host.robots.ox.ac.uk/pascal/VOC/
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np

from stillroom.config.plugins import near
from stillroom.data.errors import NoImages, UnknownLayout
from stillroom.data.sources._box_source import AnnotatedImage, BoxSource
from stillroom.data.sources._errors import InvalidVoc
from stillroom.data.sources._files import ImageFiles, images_by_stem
from stillroom.data.sources._splits import ORDER
from stillroom.data.sources.source import detect_channels, existing_path, printable, read_file

SIDES = ("xmin", "ymin", "xmax", "ymax")


class Voc(BoxSource):
    """Images with boxes, one xml file each.

    Where there are lists of splits, only what they name is read; an image without its xml file is left out and told.

    VOC's own boxes are `inclusive`: the first and the last pixel, counted from 1, so that left = xmin - 1 and
    right = xmax. That is the default, because the format is VOC's. Many tools write the `edges` instead, counted from
    0: right - left = xmax - xmin. The two differ by one pixel, which matters to small objects. A box whose last pixel
    isn't behind its first one is a slip of the hand, not an object of one pixel: `inspect` tells of it.

    Args:
        path: the folder.
        classes: names in the order of the labels, objects of other names are of no known class; None: all names that
            occur, sorted.
        difficult: what an object marked so is: "crowd", neither to be found nor background, as in VOC's own measure;
            "keep", an object like others; "drop", background.
        pixels: what the numbers mean, "inclusive" or "edges".
        unlabelled: a folder of further images for training, absolute or below `path`, which nobody has looked at.
        allow_outside: whether links may lead out of these folders.
        channels: 1 or 3; None looks at a hundred images, and takes 1 if all of them are grey.

    Raises:
        StillroomError: SR-D101 no such folder, SR-D108 no images, SR-D109 no Annotations, SR-D121 an xml file is not
            what it should be, SR-S201 a link leads outside.
    """

    def __init__(
        self,
        *,
        path: str,
        classes: tuple[str, ...] | None = None,
        difficult: Literal["crowd", "keep", "drop"] = "crowd",
        pixels: Literal["inclusive", "edges"] = "inclusive",
        unlabelled: str | None = None,
        allow_outside: bool = False,
        channels: int | None = None,
    ):
        for name, value, known in (
            ("difficult", difficult, ("crowd", "keep", "drop")),
            ("pixels", pixels, ("inclusive", "edges")),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}{near(str(value), known)}")
        self.path, self.difficult, self.pixels, self.unlabelled = path, difficult, pixels, unlabelled
        self.allow_outside = allow_outside
        root = str(existing_path(path))
        notes = self._notes(root)
        names = classes or sorted({name for _, objects in notes for name, _, _ in objects})
        self.classes = tuple(printable(name) for name in names)
        self._hold(
            [_noted(note, objects, list(names)) for note, objects in notes],
            [os.path.realpath(root)] * len(notes),
            classes=len(self.classes),
            below=root,
            unlabelled=unlabelled,
            allow_outside=allow_outside,
        )
        self.channels = channels or detect_channels(self.read, self.splits.get("train", np.arange(len(notes))))

    @staticmethod
    def matches(path: Path) -> bool:
        """Whether there are Annotations with xml files, and JPEGImages."""
        return (path / "JPEGImages").is_dir() and any((path / "Annotations").glob("*.xml"))

    def _notes(self, root: str) -> list[tuple[AnnotatedImage, list[_Object]]]:
        """Each image with what its xml file says, class names still as text."""
        folder = os.path.join(root, "Annotations")
        if not os.path.isdir(folder):
            raise UnknownLayout(path=printable(self.path), why="there is no folder Annotations in it")
        images = images_by_stem(os.path.join(root, "JPEGImages"))
        files = {name[:-4] for name in os.listdir(folder) if name.lower().endswith(".xml") and name[0] != "."}
        splits = _splits(root) or {"": sorted(files | set(images))}
        wanted = [(stem, split) for split, stems in splits.items() for stem in stems]
        self.skipped = [
            printable(os.path.join(self.path, "JPEGImages", stem)) for stem, _ in wanted if stem not in files
        ]
        notes = []
        for stem, split in wanted:
            if stem not in files:
                continue
            path = images.get(stem, os.path.join(root, "JPEGImages", f"{stem}.jpg"))  # reading will say it is missing
            file = os.path.join(folder, f"{stem}.xml")
            if not self.allow_outside:
                ImageFiles([file], [os.path.realpath(root)])
            notes.append(_parsed(file, path, split, difficult=self.difficult, inclusive=self.pixels == "inclusive"))
        if not notes:
            raise NoImages(path=printable(self.path), why="no image has an xml file in Annotations")
        return notes


_Object = tuple[str, list[float], bool]
"""Class name, box, crowd."""


def _splits(root: str) -> dict[str, list[str]]:
    """Split -> stems, from the lists; a name that train and val share with trainval counts once."""
    found = {}
    for split in ORDER:
        file = os.path.join(root, "ImageSets", "Main", f"{split}.txt")
        if os.path.isfile(file):
            lines = read_file(file, name=printable(file)).decode("utf-8", "surrogateescape").splitlines()
            found[split] = list(dict.fromkeys(line.split()[0] for line in lines if line.strip()))
    return found


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses a document type: entities are declared there, and a few of them can unpack to gigabytes."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise ValueError("it declares a document type, which VOC's files have no use for")


def _parsed(
    file: str, image: str, split: str, *, difficult: str, inclusive: bool
) -> tuple[AnnotatedImage, list[_Object]]:
    raw = read_file(file, name=printable(file))
    try:
        root = ElementTree.fromstring(raw, ElementTree.XMLParser(target=_NoDoctype()))
        objects = []
        for entry in root.iter("object"):
            hard = (entry.findtext("difficult") or "0").strip() == "1"
            if hard and difficult == "drop":
                continue
            name = (entry.findtext("name") or "").strip()
            if not name:
                raise ValueError("an object has no name")
            objects.append((name, _box(entry, inclusive), hard and difficult == "crowd"))
        size = _size(root)
    except (ElementTree.ParseError, ValueError, OverflowError) as problem:
        raise InvalidVoc(path=printable(file), why=str(problem)) from problem
    empty = np.empty(0, dtype=np.int64)
    return AnnotatedImage(path=image, split=split, boxes=empty, labels=empty, crowd=empty, size=size), objects


def _box(entry: ElementTree.Element, inclusive: bool) -> list[float]:
    values = []
    for side in SIDES:
        text = entry.findtext(f"bndbox/{side}")
        if text is None:
            raise ValueError(f"an object {(entry.findtext('name') or '').strip()!r} has no {side}")
        values.append(float(text))
    left, top, right, bottom = values
    if not inclusive:
        return values
    return [left - 1, top - 1, right - (right <= left), bottom - (bottom <= top)]


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    height, width = (root.findtext(f"size/{side}") for side in ("height", "width"))
    if height is None or width is None:
        return None
    sides = (int(float(height)), int(float(width)))
    return sides if min(sides) > 0 else None


def _noted(note: AnnotatedImage, objects: list[_Object], names: list[str]) -> AnnotatedImage:
    """The note with its objects, class names turned into numbers."""
    places = {name: number for number, name in enumerate(names)}
    return AnnotatedImage(
        path=note.path,
        split=note.split,
        boxes=np.array([box for _, box, _ in objects], dtype=np.float64).reshape(-1, 4),
        labels=np.array([places.get(name, -1) for name, _, _ in objects], dtype=np.int64),
        crowd=np.array([crowd for _, _, crowd in objects], dtype=bool),
        size=note.size,
    )

"""Boxes in Pascal VOC's XML format: one file per image.

Layout: `Annotations/*.xml`, `JPEGImages/*`, and optionally the splits in `ImageSets/Main/{train,val,test}.txt`.
Everingham et al., The PASCAL Visual Object Classes Challenge: http://host.robots.ox.ac.uk/pascal/VOC/
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np

from stillroom.config.plugins import near
from stillroom.data.errors import NoImages, UnknownLayout
from stillroom.data.sources._box_source import AnnotatedImage, BoxSource
from stillroom.data.sources._files import ImageFiles, images_by_stem
from stillroom.data.sources._paths import existing_path, printable, read_file
from stillroom.data.sources._splits import ORDER
from stillroom.data.sources._voc_xml import VocObject, parse_file
from stillroom.data.sources.source import detect_channels

Size = tuple[int, int] | None


class Voc(BoxSource):
    """Images with boxes, one XML file each.

    If there are lists of splits, only the images in them are read. Images without an XML file are left out and reported
    by `inspect`.

    In VOC's own convention boxes are `inclusive`: first and last pixel, counted from 1, so that left = xmin - 1 and
    right = xmax. This is the default. Many tools write `edges` instead, counted from 0: width = xmax - xmin. The two
    differ by one pixel, which matters for small objects. A box whose last pixel does not lie behind the first is
    reported by `inspect` as an error of the annotation, not read as a box of one pixel.

    Args:
        path: the folder.
        classes: names in label order, objects of other names are of no known class; None: all names that occur, sorted.
        difficult: the meaning of objects marked as difficult: "crowd", neither an object to detect nor background, as
            in VOC's own evaluation; "keep", an object like others; "drop", background.
        pixels: the convention of coordinates, "inclusive" or "edges".
        unlabelled: a folder of further, unannotated images for training, absolute or relative to `path`.
        allow_outside: whether links may lead out of these folders.
        channels: 1 or 3; None: 1 if a sample of a hundred images is grey, else 3.

    Raises:
        StillroomError: SR-D101 no such folder, SR-D108 no images, SR-D109 no Annotations, SR-D121 an invalid XML file,
            SR-S201 a link leads outside.
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
        for name, value, allowed in (
            ("difficult", difficult, ("crowd", "keep", "drop")),
            ("pixels", pixels, ("inclusive", "edges")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}{near(str(value), allowed)}")
        self.path, self.difficult, self.pixels, self.unlabelled = path, difficult, pixels, unlabelled
        self.allow_outside = allow_outside
        root = str(existing_path(path))
        parsed = self._parse(root)
        names = classes or sorted({entry.name for _, _, objects, _ in parsed for entry in objects})
        self.classes = tuple(printable(name) for name in names)
        self._set_images(
            [_annotated(*one, list(names)) for one in parsed],
            [os.path.realpath(root)] * len(parsed),
            classes=len(self.classes),
            below=root,
            unlabelled=unlabelled,
            allow_outside=allow_outside,
        )
        self.channels = channels or detect_channels(self.read, self.splits.get("train", np.arange(len(parsed))))

    @staticmethod
    def matches(path: Path) -> bool:
        """Whether there are folders Annotations, with XML files, and JPEGImages."""
        return (path / "JPEGImages").is_dir() and any((path / "Annotations").glob("*.xml"))

    def _parse(self, root: str) -> list[tuple[str, str, list[VocObject], Size]]:
        """Path, split, objects and declared size of each annotated image; sets `skipped`."""
        folder = os.path.join(root, "Annotations")
        if not os.path.isdir(folder):
            raise UnknownLayout(path=printable(self.path), why="there is no folder Annotations in it")
        images = images_by_stem(os.path.join(root, "JPEGImages"))
        files = {name[:-4] for name in os.listdir(folder) if name.lower().endswith(".xml") and name[0] != "."}
        splits = _splits(root) or {"": sorted(files | set(images))}
        listed = [(stem, split) for split, stems in splits.items() for stem in stems]
        self.skipped = [
            printable(os.path.join(self.path, "JPEGImages", stem)) for stem, _ in listed if stem not in files
        ]
        parsed = []
        for stem, split in listed:
            if stem not in files:
                continue
            path = images.get(stem, os.path.join(root, "JPEGImages", f"{stem}.jpg"))  # a missing image fails in `read`
            file = os.path.join(folder, f"{stem}.xml")
            if not self.allow_outside:
                ImageFiles([file], [os.path.realpath(root)])
            objects, size = parse_file(file, difficult=self.difficult, inclusive=self.pixels == "inclusive")
            parsed.append((path, split, objects, size))
        if not parsed:
            raise NoImages(path=printable(self.path), why="no image has an XML file in Annotations")
        return parsed


def _splits(root: str) -> dict[str, list[str]]:
    """Split -> stems, from the lists; a repeated stem counts once."""
    found = {}
    for split in ORDER:
        file = os.path.join(root, "ImageSets", "Main", f"{split}.txt")
        if os.path.isfile(file):
            lines = read_file(file, name=printable(file)).decode("utf-8", "surrogateescape").splitlines()
            found[split] = list(dict.fromkeys(line.split()[0] for line in lines if line.strip()))
    return found


def _annotated(path: str, split: str, objects: list[VocObject], size: Size, names: list[str]) -> AnnotatedImage:
    label_of = {name: label for label, name in enumerate(names)}
    return AnnotatedImage(
        path=path,
        split=split,
        boxes=np.array([entry.box for entry in objects], dtype=np.float64).reshape(-1, 4),
        labels=np.array([label_of.get(entry.name, -1) for entry in objects], dtype=np.int64),
        crowd=np.array([entry.crowd for entry in objects], dtype=bool),
        size=size,
    )

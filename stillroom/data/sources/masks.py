"""Images with segmentation masks: `images/NAME.jpg` and `labels/NAME.png`, in split folders or not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stillroom.data.decode_mask import decode_mask
from stillroom.data.errors import NoImages, UnknownLayout
from stillroom.data.sources._errors import InvalidClassList
from stillroom.data.sources._files import ImageFiles, images_by_stem
from stillroom.data.sources._paths import existing_path, printable, read_file
from stillroom.data.sources._splits import ORDER, SPLITS
from stillroom.data.sources._strata import rarest_class
from stillroom.data.sources.source import detect_channels
from stillroom.data.threads import thread_map
from stillroom.errors import StillroomError
from stillroom.types import IntArray

VOID_NAMES = frozenset({"unlabelled", "unlabeled", "void", "ignore", "ignored"})
VOID, UNKNOWN = -1, -2


class Masks:
    """Images with masks: grey or palette PNGs (of any suffix) whose pixel values are classes.

    `path/{train,val,test}/{images,labels}/*`, or `path/{images,labels}/*`; `val` may also be called `valid` or
    `validation`. An image and its mask have the same name except for the suffix. Images without a mask, and masks
    without an image, are left out; `inspect` reports such images.

    `classes.txt` names the classes, one per line: `VALUE NAME`, or `NAME` alone, counted from 0. Names such as void,
    ignore and Unlabelled stand for void pixels. Without the file the classes are the values up to the largest one in
    the masks of train. Values that are neither a class nor void are treated as void and reported.

    Args:
        path: the folder.
        void: values that stand for void, overriding classes.txt.
        allow_outside: whether links may lead out of the folder.
        channels: 1 or 3; None: 1 if a sample of a hundred images is grey, else 3.

    Raises:
        StillroomError: SR-D101 no such folder, SR-D108 no images, SR-D109 no images and labels in it, SR-D132
            classes.txt is not a list of names, SR-S201 a link leads outside.
    """

    kind = "masks"

    def __init__(
        self,
        *,
        path: str,
        void: tuple[int, ...] = (255,),
        allow_outside: bool = False,
        channels: int | None = None,
    ):
        self.path, self.void, self.allow_outside = path, void, allow_outside
        if not all(0 <= value <= 255 for value in void):
            raise ValueError(f"void must be integers in 0..255, got {list(void)}")
        root = str(existing_path(path))
        folders = _folders(root)
        if not folders:
            raise UnknownLayout(path=printable(path), why="there are no folders images and labels in it")
        images, masks, splits = self._pairs(folders)
        if not images:
            raise NoImages(path=printable(path), why="no image has a mask of the same name")
        real = None if allow_outside else os.path.realpath(root)
        self._files, self._masks = ImageFiles(images, [real] * len(images)), ImageFiles(masks, [real] * len(masks))
        self.splits: dict[str, IntArray] = splits
        self._set_classes(_read_classes(os.path.join(root, "classes.txt")) or self._values_of_train())
        self.labels: IntArray = self._strata()
        self.channels = channels or detect_channels(self.read, self.splits.get("train", np.arange(len(images))))

    @staticmethod
    def matches(path: Path) -> bool:
        """Whether there are folders `images` and `labels` with images in both."""
        return path.is_dir() and any(
            images_by_stem(os.path.join(folder, "images")) and images_by_stem(os.path.join(folder, "labels"))
            for folder in _folders(str(path)).values()
        )

    def name(self, item: int) -> str:
        """The image's path."""
        return self._files.name(item)

    def read(self, item: int) -> bytes:
        """The image file's bytes."""
        return self._files.read(item)

    def mask(self, item: int) -> bytes:
        """The mask file's bytes."""
        return self._masks.read(item)

    def _pairs(self, folders: dict[str, str]) -> tuple[list[str], list[str], dict[str, IntArray]]:
        """Paths of images and of their masks, and the splits; sets `skipped` to the images without a mask."""
        images: list[str] = []
        masks: list[str] = []
        splits: dict[str, IntArray] = {}
        self.skipped: list[str] = []
        for split, folder in folders.items():
            image_of, mask_of = (images_by_stem(os.path.join(folder, name)) for name in ("images", "labels"))
            both = sorted(set(image_of) & set(mask_of))
            self.skipped += [printable(path) for stem, path in image_of.items() if stem not in mask_of]
            if split and both:
                splits[split] = np.arange(len(images), len(images) + len(both))
            images += [image_of[stem] for stem in both]
            masks += [mask_of[stem] for stem in both]
        return images, masks, splits

    def _values_of_train(self) -> dict[int, str]:
        """Classes named by their values, up to the largest value in the masks of train."""
        items = self.splits.get("train", np.arange(len(self._masks)))
        found = np.concatenate(thread_map(self._values_in, items.tolist()) or [np.empty(0, np.int64)])
        classes = found[~np.isin(found, self.void)]
        return {value: str(value) for value in range(int(classes.max()) + 1 if len(classes) else 0)}

    def _set_classes(self, names: dict[int, str]) -> None:
        """Set `classes`, and `values` from stored values to 0..K-1 in order, VOID or UNKNOWN."""
        self.values: IntArray = np.full(256, UNKNOWN, dtype=np.int64)
        classes: list[str] = []
        for value, name in sorted(names.items()):
            if value in self.void or name.lower() in VOID_NAMES:
                self.values[value] = VOID
            else:
                self.values[value] = len(classes)
                classes.append(printable(name))
        self.values[list(self.void)] = VOID
        self.classes = tuple(classes)

    def _strata(self) -> IntArray:
        """The rarest class of each image. If all splits are given, this is not needed and no mask is read."""
        if set(ORDER) <= set(self.splits):
            return np.full(len(self._files), VOID, dtype=np.int64)
        found: Sequence[IntArray] = thread_map(self._values_in, range(len(self._files)))
        return rarest_class([self.values[present] for present in found], len(self.classes))

    def _values_in(self, item: int) -> IntArray:
        """The values that occur in a mask; none for an unreadable mask, which is reported when the image is used."""
        try:
            mask = decode_mask(self.mask(item), name=self._masks.name(item))
        except StillroomError:
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(np.bincount(mask.ravel(), minlength=256))


def _folders(root: str) -> dict[str, str]:
    """Split -> the folder that contains its images and labels; the single name "" if that is the root itself."""

    def has_both(folder: str) -> bool:
        return all(os.path.isdir(os.path.join(folder, name)) for name in ("images", "labels"))

    if has_both(root):
        return {"": root}
    found: dict[str, str] = {}
    for name in sorted(os.listdir(root)) if os.path.isdir(root) else []:
        folder = os.path.join(root, name)
        if name.lower() in SPLITS and has_both(folder):
            if SPLITS[name.lower()] in found:
                why = "one split has two folders, such as val and valid"
                raise UnknownLayout(path=printable(root), why=why)
            found[SPLITS[name.lower()]] = folder
    return {split: found[split] for split in ORDER if split in found}


def _read_classes(file: str) -> dict[int, str]:
    """Value -> name, from classes.txt; empty if there is no such file."""
    if not os.path.isfile(file):
        return {}
    found: dict[int, str] = {}
    text = read_file(file, name=printable(file)).decode("utf-8", "surrogateescape")
    for line in filter(None, (line.strip() for line in text.splitlines())):
        first, _, rest = line.partition(" ")
        value, name = (int(first), rest.strip()) if first.isdecimal() and rest.strip() else (len(found), line)
        if value > 255 or value in found:
            why = f"line {line!r}: the value {value} is {'above 255' if value > 255 else 'used twice'}"
            raise InvalidClassList(path=printable(file), why=why)
        found[value] = name
    return found

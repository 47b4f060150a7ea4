"""Images with a class for each pixel: `images/NAME.jpg` and `labels/NAME.png`, in split folders or not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stillroom.data.decode import decode_mask
from stillroom.data.errors import NoImages, UnknownLayout
from stillroom.data.sources._errors import InvalidClassList
from stillroom.data.sources._files import ImageFiles, images_by_stem
from stillroom.data.sources._splits import ORDER, SPLITS
from stillroom.data.sources._strata import rarest_class
from stillroom.data.sources.source import Numbers, detect_channels, existing_path, printable, read_file
from stillroom.data.threads import thread_map
from stillroom.errors import StillroomError

VOID_NAMES = frozenset({"unlabelled", "unlabeled", "void", "ignore", "ignored"})
VOID, UNKNOWN = -1, -2


class Masks:
    """Images with masks: grey or palette PNGs (of whatever suffix) whose numbers are classes.

    `path/{train,val,test}/{images,labels}/*`, or `path/{images,labels}/*`; `val` may also be called `valid` or
    `validation`. An image and its mask have the same name but for the suffix. Those without a partner are left out
    and told.

    `classes.txt` names the classes, a line each: `NUMBER NAME`, or `NAME` alone, numbered from 0. Names such as void,
    ignore and Unlabelled stand for pixels that nobody decided about. Without the file the classes are the numbers up to
    the largest one in the masks of train. Numbers that are neither a class nor void are treated as void, and told.

    Args:
        path: the folder.
        void: numbers that stand for void, whatever classes.txt calls them.
        allow_outside: whether links may lead out of the folder.
        channels: 1 or 3; None looks at a hundred images, and takes 1 if all of them are grey.

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
        if not all(0 <= number <= 255 for number in void):
            raise ValueError(f"void must be numbers in 0..255, got {list(void)}")
        root = str(existing_path(path))
        folders = _folders(root)
        if not folders:
            raise UnknownLayout(path=printable(path), why="there are no folders images and labels in it")
        images, masks, splits = self._pairs(folders)
        if not images:
            raise NoImages(path=printable(path), why="no image has a mask of its name")
        real = None if allow_outside else os.path.realpath(root)
        self._files, self._masks = ImageFiles(images, [real] * len(images)), ImageFiles(masks, [real] * len(masks))
        self.splits: dict[str, Numbers] = splits
        names = _listed(os.path.join(root, "classes.txt")) or self._numbered()
        self._name_classes(names)
        self.labels: Numbers = self._strata()
        self.channels = channels or detect_channels(self.read, self.splits.get("train", np.arange(len(images))))

    @staticmethod
    def matches(path: Path) -> bool:
        """Whether there are folders images and labels with images in both."""
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

    def _pairs(self, folders: dict[str, str]) -> tuple[list[str], list[str], dict[str, Numbers]]:
        """Paths of images and of their masks, and the splits; notes which images have no mask."""
        images: list[str] = []
        masks: list[str] = []
        splits: dict[str, Numbers] = {}
        self.skipped: list[str] = []
        for split, folder in folders.items():
            here, there = (images_by_stem(os.path.join(folder, name)) for name in ("images", "labels"))
            both = sorted(set(here) & set(there))
            self.skipped += [printable(path) for stem, path in here.items() if stem not in there]
            if split and both:
                splits[split] = np.arange(len(images), len(images) + len(both))
            images += [here[stem] for stem in both]
            masks += [there[stem] for stem in both]
        return images, masks, splits

    def _numbered(self) -> dict[int, str]:
        """Classes named by their numbers, as far as the masks of train go."""
        items = self.splits.get("train", np.arange(len(self._masks)))
        seen = np.concatenate(thread_map(self._seen, items.tolist()) or [np.empty(0, np.int64)])
        known = seen[~np.isin(seen, self.void)]
        return {number: str(number) for number in range(int(known.max()) + 1 if len(known) else 0)}

    def _name_classes(self, names: dict[int, str]) -> None:
        """Numbers that are classes, in their order, become 0..K-1."""
        self.values: Numbers = np.full(256, UNKNOWN, dtype=np.int64)
        kept: list[str] = []
        for number, name in sorted(names.items()):
            if number in self.void or name.lower() in VOID_NAMES:
                self.values[number] = VOID
            else:
                self.values[number] = len(kept)
                kept.append(printable(name))
        self.values[list(self.void)] = VOID
        self.classes = tuple(kept)

    def _strata(self) -> Numbers:
        """The rarest class of each image, where a split must still be made; else nobody needs it, nor reads a mask."""
        if set(ORDER) <= set(self.splits):
            return np.full(len(self._files), VOID, dtype=np.int64)
        found: Sequence[Numbers] = thread_map(self._seen, range(len(self._files)))
        return rarest_class([self.values[seen] for seen in found], len(self.classes))

    def _seen(self, item: int) -> Numbers:
        """The numbers in a mask; none of one that can't be used, which is told when it is met in earnest."""
        try:
            mask = decode_mask(self.mask(item), name=self._masks.name(item))
        except StillroomError:
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(np.bincount(mask.ravel(), minlength=256))


def _folders(root: str) -> dict[str, str]:
    """Split -> the folder with its images and labels; the one name "" when they lie in the root itself."""

    def holds(folder: str) -> bool:
        return all(os.path.isdir(os.path.join(folder, name)) for name in ("images", "labels"))

    if holds(root):
        return {"": root}
    found: dict[str, str] = {}
    for name in sorted(os.listdir(root)) if os.path.isdir(root) else []:
        folder = os.path.join(root, name)
        if name.lower() in SPLITS and holds(folder):
            if SPLITS[name.lower()] in found:
                why = "a split is there twice, as val, valid or validation"
                raise UnknownLayout(path=printable(root), why=why)
            found[SPLITS[name.lower()]] = folder
    return {split: found[split] for split in ORDER if split in found}


def _listed(file: str) -> dict[int, str]:
    """Number -> name, from classes.txt; nothing where there is no such file."""
    if not os.path.isfile(file):
        return {}
    found: dict[int, str] = {}
    text = read_file(file, name=printable(file)).decode("utf-8", "surrogateescape")
    for line in filter(None, (line.strip() for line in text.splitlines())):
        first, _, rest = line.partition(" ")
        number, name = (int(first), rest.strip()) if first.isdecimal() and rest.strip() else (len(found), line)
        if number > 255 or number in found:
            why = f"line {line!r}: the number {number} is {'too large' if number > 255 else 'there twice'}"
            raise InvalidClassList(path=printable(file), why=why)
        found[number] = name
    return found

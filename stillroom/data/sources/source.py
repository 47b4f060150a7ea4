"""The contract of a source: where images and labels come from, one kind a file in this folder.

A source knows the list of its images and gives each as it is stored. It neither decodes, resizes nor splits (it only
tells which split the publisher made), and it reads an image when asked for that image, not before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from os.path import commonpath, realpath
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stillroom.config.plugins import near
from stillroom.data.decode import read_header
from stillroom.data.errors import UnreadableImage
from stillroom.data.hash_rng import evenly_spaced
from stillroom.data.sources._errors import DataNotFound, DataPermissionDenied, PathOutsideData
from stillroom.errors import StillroomError

Numbers = NDArray[np.int64]
PEEKED = 100


@dataclass(frozen=True, kw_only=True)
class BoxAnnotations:
    """What somebody noted about one image: M boxes, as they were written, whatever may be wrong with them.

    Attributes:
        boxes: [M, 4] float64, left, top, right, bottom in pixels; 0 is the left or upper edge of the first pixel.
        labels: [M] int64, indices into the classes; whatever lies outside 0..K-1 is of no known class.
        crowd: [M] bool, a box around a group that nobody told apart: neither an object to be found nor background.
        size: height and width of the picture that the pixels are counted in.
        known: whether somebody has looked for objects; without, nothing follows from there being no box.
    """

    boxes: NDArray[np.float64]
    labels: Numbers
    crowd: NDArray[np.bool_]
    size: tuple[int, int]
    known: bool = True


@runtime_checkable
class Source(Protocol):
    """N images, and what is known of them.

    Attributes:
        classes: the K class names, in the order of the labels.
        channels: 1 where all images are grey, else 3.
        labels: [N] numbers, indices into `classes`, -1 where nobody knows; whatever else lies outside 0..K-1 is found
            by `inspect`. Images that nobody knows are for training only, unless nobody knows any. Of kinds other than
            labels: by what splits are shared out equally, e.g. the rarest class in the image, -1 for none.
        splits: any of "train", "val", "test" -> item numbers; empty where the publisher made no split.

    A source of another kind than labels has besides:

        kind: "boxes" or "masks", see `stillroom.types.TargetKind`.
        boxes(item) -> Boxes: of kind boxes.
        mask(item) -> bytes or NDArray: of kind masks; an encoded grey or palette image, or numbers [H, W].
        values: [256] int64, of kind masks: the class that each number in a mask stands for, -1 for void, -2 for nothing
            known; without it a number is the class itself and 255 is void.
        further: the last so many items are for training only and in no split (0 where it is left out).
        without: names of images of which nothing is known, and which were therefore left out.

    A source that is made from a path also has `fits(path) -> bool` (static), by which `data=PATH` finds it: true only
    when nothing but this kind can be meant, class folders aside, which are what remains.
    """

    classes: tuple[str, ...]
    channels: int
    labels: Numbers
    splits: dict[str, Numbers]

    def name(self, item: int) -> str:
        """The image's path or number, as its owner would write it, printable."""
        ...

    def read(self, item: int) -> bytes | NDArray[np.uint8]:
        """An encoded file, or pixels uint8 [H, W] or [H, W, C].

        Raises:
            StillroomError: SR-D102 missing, SR-D104 not permitted.
        """
        ...


def content_hash(raw: bytes | NDArray[np.uint8]) -> bytes:
    """sha256 of a file, or of pixels and their shape."""
    if isinstance(raw, bytes):
        return hashlib.sha256(raw).digest()
    return hashlib.sha256(str(raw.shape).encode() + np.ascontiguousarray(raw).tobytes()).digest()


def existing_path(path: str) -> Path:
    """The path, if it exists.

    Raises:
        DataNotFound: SR-D101, naming the nearest name beside it.
    """
    found = Path(path).expanduser()
    if found.exists():
        return found
    beside = [p.name for p in found.parent.iterdir()] if found.parent.is_dir() else []
    hint = near(found.name, beside) if beside else f"; nor is there a folder {printable(str(found.parent))}"
    raise DataNotFound(path=printable(path), hint=hint if len(hint) < 400 else "")


def printable(path: str) -> str:
    r"""The path with bytes that are not UTF-8 written as \xNN: it can be printed, logged and sent as JSON."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_file(path: str, *, name: str) -> bytes:
    """The bytes of a file.

    Raises:
        StillroomError: SR-D104 not permitted, SR-D102 missing or failing medium.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except PermissionError as problem:
        raise DataPermissionDenied(path=name) from problem
    except OSError as problem:
        raise UnreadableImage(path=name, why=f"reading it failed: {problem.strerror}") from problem


def require_inside(path: str, *, root: str, shown: str) -> None:
    """Makes sure that `path`, every link followed, lies below `root` (which is real already).

    Raises:
        PathOutsideData: SR-S201.
    """
    target = realpath(path)
    if commonpath([target, root]) != root:
        raise PathOutsideData(path=shown, target=printable(target), root=printable(root))


def detect_channels(read: Callable[[int], bytes | NDArray[np.uint8]], items: Numbers) -> int:
    """1 if a hundred images spread over `items` are all grey, else 3. Unreadable ones don't count."""
    seen = set()
    for item in items[evenly_spaced(len(items), PEEKED)]:
        try:
            seen.add(read_header(read(int(item)))[2])
        except StillroomError:
            continue
        if 3 in seen:
            return 3
    return 1 if seen == {1} else 3

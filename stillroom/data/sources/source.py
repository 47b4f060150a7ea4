"""The interface of a source: where images and annotations come from. Each file of this folder is one kind of source.

A source lists its images and returns each one as it is stored. It neither decodes, resizes nor splits (it only passes
on the splits of the publisher), and it reads an image only when that image is requested.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stillroom.data.decode import read_header
from stillroom.data.hash_rng import evenly_spaced
from stillroom.errors import StillroomError
from stillroom.types import IntArray

CHANNEL_SAMPLE = 100  # images that are read to find out whether a data set is grey


@dataclass(frozen=True, kw_only=True)
class BoxAnnotations:
    """The M annotated boxes of one image as they are stored, unchecked.

    Attributes:
        boxes: [M, 4] float64, left, top, right, bottom in pixels; 0 is the left or upper edge of the first pixel.
        labels: [M] int64, indices into the classes; values outside 0..K-1 are of no known class.
        crowd: [M] bool, a box around a group of objects: neither an object to detect nor background.
        size: height and width of the image that the pixel coordinates refer to.
        known: whether the image was annotated; if not, the absence of boxes means nothing.
    """

    boxes: NDArray[np.float64]
    labels: IntArray
    crowd: NDArray[np.bool_]
    size: tuple[int, int]
    known: bool = True


@runtime_checkable
class Source(Protocol):
    """N images and their annotations.

    Attributes:
        classes: the K class names, in label order.
        channels: 1 if all images are grey, else 3.
        labels: [N] indices into `classes`, -1 for unlabelled images; other values outside 0..K-1 are reported by
            `inspect`. Unlabelled images are used for training only, unless all images are unlabelled. For other kinds
            than labels: the stratum of each image for splitting, e.g. its rarest class, -1 for none.
        splits: any of "train", "val", "test" -> item indices; empty where the publisher made no split.

    A source of boxes or masks also has:

        kind: "boxes" or "masks", see `stillroom.types.TargetKind`.
        boxes(item) -> BoxAnnotations: for kind boxes.
        mask(item) -> bytes or NDArray: for kind masks; an encoded grey or palette image, or integers [H, W].

    and may have:

        values: [256] int64, for kind masks: the class of each stored value, -1 for void, -2 for an unknown value. By
            default the stored value is the class and 255 is void.
        num_unlabelled: number of items at the end that are unlabelled, for training only and in no split; default 0.
        skipped: names of images that were left out because they have no annotation.

    A source that is built from a path also has a static `matches(path) -> bool`, by which `data=PATH` finds it. It is
    true only if the path can't belong to another kind, except that class folders match whatever else remains.
    """

    classes: tuple[str, ...]
    channels: int
    labels: IntArray
    splits: dict[str, IntArray]

    def name(self, item: int) -> str:
        """The image's path or index in printable form, as the user would write it."""
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


def detect_channels(read: Callable[[int], bytes | NDArray[np.uint8]], items: IntArray) -> int:
    """1 if a hundred evenly spaced images of `items` are all grey, else 3. Unreadable images are ignored."""
    found = set()
    for item in items[evenly_spaced(len(items), CHANNEL_SAMPLE)]:
        try:
            found.add(read_header(read(int(item)))[2])
        except StillroomError:
            continue
        if 3 in found:
            return 3
    return 1 if found == {1} else 3

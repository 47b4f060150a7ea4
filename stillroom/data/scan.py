"""A pass over the files of a source that reads headers and bytes without decoding: image sizes and content hashes."""

from __future__ import annotations

import hashlib

import numpy as np

from stillroom.data.bad_images import raise_if_unsafe
from stillroom.data.decode import read_header
from stillroom.data.sources.source import Source, content_hash
from stillroom.data.targets.target import Targets
from stillroom.data.threads import thread_map
from stillroom.errors import StillroomError
from stillroom.types import IntArray

MAX_INFERRED_SIZE = 224


class Scan:
    """Heights and widths, content hashes and failures of the images scanned so far.

    Args:
        source: of the images.
        max_pixels: of the decode rule.

    Attributes:
        sizes: item -> height and width.
        hashes: item -> sha256 of its content; empty for an unreadable image.
        failures: item -> why it is unreadable.
    """

    def __init__(self, source: Source, *, max_pixels: int):
        self.source, self.max_pixels = source, max_pixels
        self.sizes: dict[int, tuple[int, int]] = {}
        self.hashes: dict[int, bytes] = {}
        self.failures: dict[int, StillroomError] = {}

    def add(self, items: IntArray) -> None:
        """Scan the items that were not scanned before."""
        thread_map(self._scan, [item for item in items.tolist() if item not in self.hashes])

    def image_size(self) -> int:
        """H = W: the images' own size if all are squares of one size, else the median shorter side, at most 224."""
        sizes = set(self.sizes.values())
        if len(sizes) == 1:
            height, width = next(iter(sizes))
            if height == width:
                return height
        shorter = [min(pair) for pair in self.sizes.values()]
        return min(MAX_INFERRED_SIZE, int(np.median(shorter))) if shorter else MAX_INFERRED_SIZE

    def fingerprint(self, splits: dict[str, IntArray], targets: Targets, size: int) -> str:
        """See `Dataset.fingerprint`."""
        source = self.source
        digest = hashlib.sha256(repr((source.classes, source.channels, size)).encode())
        for name, items in splits.items():
            digest.update(name.encode() + items.tobytes() + source.labels[items].tobytes())
            file_names = (source.name(item).rpartition("/")[2] for item in items.tolist())
            digest.update("\0".join(file_names).encode("utf-8", "surrogateescape"))
            digest.update(b"".join(self.hashes.get(item, b"") for item in items.tolist()))
            digest.update(targets.digest(items, sampled=self.hashes))
        return digest.hexdigest()

    def _scan(self, item: int) -> None:
        self.hashes[item] = b""
        name = self.source.name(item)
        try:
            raw = self.source.read(item)
            self.hashes[item] = content_hash(raw)
            self.sizes[item] = read_header(raw, max_pixels=self.max_pixels, name=name)[:2]
        except StillroomError as failure:
            raise_if_unsafe(failure)
            self.failures[item] = failure

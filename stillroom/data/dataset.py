"""A source made ready for use: split, sized, checked, and told apart from every other by a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillroom.data.decode import MAX_PIXELS, read_header
from stillroom.data.errors import NoImages
from stillroom.data.hash_rng import evenly_spaced
from stillroom.data.sources.source import Numbers, Source, content_hash
from stillroom.data.splits import complete_splits
from stillroom.data.store import BadImage, BadImageLog, Split, raise_if_unsafe
from stillroom.data.targets.build import build_targets
from stillroom.data.targets.target import Targets
from stillroom.data.threads import thread_map
from stillroom.errors import StillroomError
from stillroom.types import TargetKind

__all__ = ["Dataset", "Split", "load_dataset"]

LARGEST_OWN_SIZE = 224
SURVEYED = 2000


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Images of K classes in three splits.

    Attributes:
        classes: names, in the order of the labels.
        channels: C, 1 or 3.
        size: H = W of every image.
        splits: "train", "val" and "test".
        fingerprint: sha256 over classes, size, labels or boxes, splits, file names, and the content of train and val,
            masks included (of the surveyed sample where the set is too large for memory). The same files in another
            folder have the same.
        source: where the images come from.
        ledger: the images that could not be read so far.
        targets: what is known of the images beside their pixels.
    """

    classes: tuple[str, ...]
    channels: int
    size: int
    splits: dict[str, Split]
    fingerprint: str
    source: Source = field(repr=False)
    bad_image_log: BadImageLog = field(repr=False)
    targets: Targets = field(repr=False)

    @property
    def kind(self) -> TargetKind:
        """What is known of the images: labels, boxes or masks."""
        return self.targets.kind

    @property
    def labelled(self) -> bool:
        """Whether anything is known of any image."""
        return not self._unknown().all()

    @property
    def bad(self) -> list[BadImage]:
        """Images that can't be used, as far as anybody has looked."""
        return [self.bad_image_log.bad[item] for item in sorted(self.bad_image_log.bad)]

    def summary(self) -> dict[str, Any]:
        """What a report prints; opens no split."""
        counts = {name: self.targets.counts(split.listed).tolist() for name, split in self.splits.items()}
        return {
            "classes": list(self.classes),
            "channels": self.channels,
            "size": self.size,
            "images": {name: len(split.listed) for name, split in self.splits.items()},
            "per_class": counts,
            "unlabelled": int(self._unknown().sum()),
            "bad": len(self.bad_image_log.bad),
            "in_memory": all(split.memory for split in self.splits.values()),
            "fingerprint": self.fingerprint,
        }

    def _unknown(self) -> NDArray[np.bool_]:
        """For each image of all splits whether nothing is known of it."""
        return self.targets.unlabelled(np.concatenate([split.listed for split in self.splits.values()]))


def load_dataset(
    source: Source,
    *,
    size: int | None = None,
    max_bad: float = 0.01,
    max_pixels: int = MAX_PIXELS,
    memory_gb: float = 2.0,
    val: float = 0.15,
    test: float = 0.2,
    seed: int = 0,
    report: Path | None = None,
) -> Dataset:
    """Splits a source and looks at the headers of its train and val images; the test split stays closed.

    Where the decoded set is larger than `memory_gb`, 2,000 images spread over train and val are looked at, and images
    are decoded on request.

    Args:
        source: where images come from.
        size: H = W; every image's shorter side is brought to it and the centre kept, or, with boxes and masks, the
            whole image stretched to it. None: the images' own size where all are squares of one size, else the median
            of the shorter sides, 224 at most.
        max_bad: the largest share of images that may be unreadable.
        max_pixels: the largest image that is decoded.
        memory_gb: GiB of decoded images that may be kept in memory.
        val: share that chooses the model, where the source doesn't say.
        test: share that is reported, where the source doesn't say.
        seed: of the split.
        report: the folder for bad_files.csv.

    Raises:
        StillroomError: SR-D107 too many bad images, SR-D108 none that can be read, SR-D115 too few to split.
    """
    targets = build_targets(source)
    splits = _splits(source, targets, val=val, test=test, seed=seed)
    total = sum(len(items) for items in splits.values())
    ledger = BadImageLog(total=total, max_bad=max_bad, report=report)
    survey = _Survey(source, max_pixels=max_pixels)
    visible = np.sort(np.concatenate([splits["train"], splits["val"]]))
    survey.look(visible[evenly_spaced(len(visible), SURVEYED)])
    side = size or survey.size()
    memory = total * (source.channels + targets.planes) * side**2 <= memory_gb * 2**30
    if memory:
        survey.look(visible)
        side = size or survey.size()
    for name in ("train", "val"):
        ledger.add(name, [(item, survey.failures[item]) for item in splits[name].tolist() if item in survey.failures])
    if len(survey.failures) == len(visible):
        raise NoImages(path=source.name(0), why=f"none of {len(visible)} images can be read")
    made = {
        name: Split(
            name=name,
            listed=items,
            source=source,
            size=side,
            max_pixels=max_pixels,
            memory=memory,
            bad_image_log=ledger,
            targets=targets,
        )
        for name, items in splits.items()
    }
    fingerprint = _fingerprint(source, targets, splits, side, survey.contents)
    return Dataset(
        classes=source.classes,
        channels=source.channels,
        size=side,
        splits=made,
        fingerprint=fingerprint,
        source=source,
        bad_image_log=ledger,
        targets=targets,
    )


def _splits(source: Source, targets: Targets, *, val: float, test: float, seed: int) -> dict[str, Numbers]:
    """All three splits.

    Images of which nothing is known are for training, unless somebody has put them elsewhere or there are no others;
    they make no split larger or smaller.
    """
    every = np.arange(len(source.labels))
    placed = np.concatenate([items for name, items in source.splits.items() if name != "train"] or [every[:0]])
    unknown = targets.unlabelled(every)
    further = every[:0] if unknown.all() else np.setdiff1d(every[unknown], placed)
    train = np.setdiff1d(source.splits.get("train", np.setdiff1d(every, placed)), further)
    splits = complete_splits(source.labels, source.splits | {"train": train}, val=val, test=test, seed=seed)
    return splits | {"train": np.union1d(splits["train"], further)}


class _Survey:
    """Sizes and content hashes of images, from their headers and bytes."""

    def __init__(self, source: Source, *, max_pixels: int):
        self.source, self.max_pixels = source, max_pixels
        self.sides: dict[int, tuple[int, int]] = {}
        self.contents: dict[int, bytes] = {}
        self.failures: dict[int, StillroomError] = {}

    def look(self, items: Numbers) -> None:
        thread_map(self._one, [item for item in items.tolist() if item not in self.contents])

    def size(self) -> int:
        """The side for all: their own where they are squares of one size, else the median shorter side, 224 at most."""
        sides = set(self.sides.values())
        if len(sides) == 1:
            height, width = next(iter(sides))
            if height == width:
                return height
        shorter = [min(pair) for pair in self.sides.values()]
        return min(LARGEST_OWN_SIZE, int(np.median(shorter))) if shorter else LARGEST_OWN_SIZE

    def _one(self, item: int) -> None:
        self.contents[item] = b""
        name = self.source.name(item)
        try:
            raw = self.source.read(item)
            self.contents[item] = content_hash(raw)
            self.sides[item] = read_header(raw, max_pixels=self.max_pixels, name=name)[:2]
        except StillroomError as failure:
            raise_if_unsafe(failure)
            self.failures[item] = failure


def _fingerprint(
    source: Source, targets: Targets, splits: dict[str, Numbers], size: int, contents: dict[int, bytes]
) -> str:
    digest = hashlib.sha256(repr((source.classes, source.channels, size)).encode())
    for name, items in splits.items():
        digest.update(name.encode() + items.tobytes() + source.labels[items].tobytes())
        digest.update("\0".join(_last_parts(source, items)).encode("utf-8", "surrogateescape"))
        digest.update(b"".join(contents.get(item, b"") for item in items.tolist()))
        digest.update(targets.digest(items, sampled=contents))
    return digest.hexdigest()


def _last_parts(source: Source, items: Numbers) -> Iterable[str]:
    return (source.name(item).rpartition("/")[2] for item in items.tolist())

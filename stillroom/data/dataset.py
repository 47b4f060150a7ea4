"""A source prepared for use: split, with a common image size, checked, and identified by a fingerprint."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillroom.data.bad_images import BadImage, BadImageLog
from stillroom.data.decode import MAX_PIXELS
from stillroom.data.errors import NoImages
from stillroom.data.hash_rng import evenly_spaced
from stillroom.data.label_budget import limit_labels
from stillroom.data.scan import Scan
from stillroom.data.sources.source import Source
from stillroom.data.splits import complete_splits
from stillroom.data.store import Split
from stillroom.data.targets.build import build_targets
from stillroom.data.targets.target import Targets
from stillroom.types import IntArray, TargetKind

__all__ = ["Dataset", "Split", "load_dataset"]

SAMPLED = 2000  # images that are scanned where the data set does not fit into memory


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Images of K classes in three splits.

    Attributes:
        classes: names, in label order.
        channels: C, 1 or 3.
        size: H = W of every image.
        splits: "train", "val" and "test"; "teacher" too where it has images of its own.
        fingerprint: sha256 over classes, size, labels or boxes, splits, file names, and the content of train and val,
            masks included (of the sample where the data set does not fit into memory). The folder does not matter.
        source: of the images.
        bad_image_log: the images found unreadable so far.
        targets: the annotation of the images.
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
        """The kind of annotation: labels, boxes or masks."""
        return self.targets.kind

    @property
    def labelled(self) -> bool:
        """Whether any image is labelled."""
        return not self._unlabelled().all()

    @property
    def bad(self) -> list[BadImage]:
        """The images found unreadable so far."""
        return [self.bad_image_log.bad[item] for item in sorted(self.bad_image_log.bad)]

    def summary(self) -> dict[str, Any]:
        """Facts for a report; opens no split."""
        counts = {name: self.targets.counts(split.listed).tolist() for name, split in self.splits.items()}
        return {
            "classes": list(self.classes),
            "channels": self.channels,
            "size": self.size,
            "images": {name: len(split.listed) for name, split in self.splits.items()},
            "per_class": counts,
            "unlabelled": int(self._unlabelled().sum()),
            "bad": len(self.bad_image_log.bad),
            "in_memory": all(split.in_memory for split in self.splits.values()),
            "fingerprint": self.fingerprint,
        }

    def _unlabelled(self) -> NDArray[np.bool_]:
        """For each image of all splits whether it is unlabelled."""
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
    labels: float | None = None,
    teacher_images: float | None = None,
    seed: int = 0,
    report: Path | None = None,
) -> Dataset:
    """Split a source and read the headers of its train and val images; the test split is not opened.

    If the decoded images would need more than `memory_gb`, 2,000 evenly spaced images of train and val are scanned
    instead of all, and images are decoded on request.

    Args:
        source: of the images.
        size: H = W of every image: the shorter side is resized to it and the centre cropped, or, with boxes and masks,
            the whole image is stretched to it. None: the images' own size if all are squares of one size, else the
            median of the shorter sides, at most 224.
        max_bad: largest fraction of images that may be unreadable.
        max_pixels: H W of the largest image that is decoded.
        memory_gb: GiB of decoded images that may be kept in memory.
        val: fraction for model selection, where the source has no such split.
        test: fraction for reported results, where the source has no such split.
        labels: how many labels of train are used, see `limit_labels`.
        teacher_images: how many images of train the teacher gets for itself, likewise.
        seed: of the split.
        report: folder for bad_files.csv.

    Raises:
        StillroomError: SR-D107 too many bad images, SR-D108 none that can be read, SR-D115 too few to split,
            SR-D144 too few for `labels` or `teacher_images`.
    """
    targets = build_targets(source)
    splits = _splits(source, targets, val=val, test=test, seed=seed)
    targets, splits = limit_labels(
        targets, source.labels, splits, labels=labels, teacher_images=teacher_images, seed=seed
    )
    total = sum(len(items) for items in splits.values())
    log = BadImageLog(total=total, max_bad=max_bad, report=report)
    scan = Scan(source, max_pixels=max_pixels)
    visible = np.sort(np.concatenate([items for name, items in splits.items() if name != "test"]))
    scan.add(visible[evenly_spaced(len(visible), SAMPLED)])
    side = size or scan.image_size()
    in_memory = total * (source.channels + targets.planes) * side**2 <= memory_gb * 2**30
    if in_memory:
        scan.add(visible)
        side = size or scan.image_size()
    for name in splits.keys() - {"test"}:
        log.add(name, [(item, scan.failures[item]) for item in splits[name].tolist() if item in scan.failures])
    if len(scan.failures) == len(visible):
        raise NoImages(path=source.name(0), why=f"none of {len(visible)} images can be read")
    common: dict[str, Any] = {"source": source, "size": side, "bad_image_log": log, "targets": targets}
    common |= {"max_pixels": max_pixels, "in_memory": in_memory}
    return Dataset(
        classes=source.classes,
        channels=source.channels,
        size=side,
        splits={name: Split(name=name, listed=items, **common) for name, items in splits.items()},
        fingerprint=scan.fingerprint(splits, targets, side),
        source=source,
        bad_image_log=log,
        targets=targets,
    )


def _splits(source: Source, targets: Targets, *, val: float, test: float, seed: int) -> dict[str, IntArray]:
    """All three splits.

    Unlabelled images go to train, unless the source has placed them elsewhere or no image is labelled; they do not
    count towards the fractions of the other splits.
    """
    items = np.arange(len(source.labels))
    placed = np.concatenate([items for name, items in source.splits.items() if name != "train"] or [items[:0]])
    unlabelled = targets.unlabelled(items)
    added = items[:0] if unlabelled.all() else np.setdiff1d(items[unlabelled], placed)
    train = np.setdiff1d(source.splits.get("train", np.setdiff1d(items, placed)), added)
    splits = complete_splits(source.labels, source.splits | {"train": train}, val=val, test=test, seed=seed)
    return splits | {"train": np.union1d(splits["train"], added)}

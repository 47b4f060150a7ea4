"""Checks of a data set before training. Only problems that make training meaningless are errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from stillroom.data.dataset import Dataset
from stillroom.data.decode import oriented_size, read_header, to_pixels
from stillroom.data.errors import (
    ClassMissingInSplit,
    DuplicatesAcrossSplits,
    MissingAnnotationFiles,
    TooFewClasses,
    UnlabelledEvaluationImages,
    UnreadableImage,
)
from stillroom.data.finding import Finding, examples, warning
from stillroom.data.sources.source import Source, content_hash
from stillroom.data.threads import thread_map
from stillroom.errors import SecurityError, StillroomError


def inspect(source: Source, dataset: Dataset, *, deep: bool = False) -> list[Finding]:
    """All problems of the data, errors first.

    The bytes of every image, test included, are read to find unreadable files and duplicates across splits. Copies that
    were encoded again are not found.

    Args:
        source: where the images come from.
        dataset: from `load_dataset`.
        deep: also decode every image, which finds damage behind the header and takes longer.
    """
    hashes: dict[int, bytes] = {}
    sizes: dict[int, tuple[int, int]] = {}
    found = [*inspect_targets(source, dataset), *_unreadable(source, dataset, hashes, sizes, deep=deep)]
    found += [*_duplicates(source, dataset, hashes), *dataset.targets.size_findings(sizes)]
    return sorted(found, key=lambda finding: finding.severity != "error")


def inspect_targets(source: Source, dataset: Dataset) -> list[Finding]:
    """Problems with labels, boxes, masks and classes; reads mask files but no images."""
    found = [*dataset.targets.target_findings(), *_missing_annotations(source, dataset)]
    return found + ([*_unlabelled_evaluation(source, dataset), *_classes(dataset)] if dataset.labelled else [])


def raise_first_error(findings: Iterable[Finding]) -> None:
    """Raise the first error among the findings, if there is one."""
    for finding in findings:
        if finding.severity == "error":
            raise finding.failure


def summary(dataset: Dataset, findings: Iterable[Finding]) -> dict[str, Any]:
    """`Dataset.summary` with the findings, for `--json`."""
    listed = [{"severity": finding.severity} | finding.failure.as_dict() for finding in findings]
    return dataset.summary() | {"findings": listed}


def _missing_annotations(source: Source, dataset: Dataset) -> Iterator[Finding]:
    names = getattr(source, "skipped", [])
    if names:
        yield warning(MissingAnnotationFiles(count=len(names), kind=dataset.kind, examples=examples(names)))


def _unlabelled_evaluation(source: Source, dataset: Dataset) -> Iterator[Finding]:
    """Unlabelled images in val and test of a data set that has labels."""
    for name in ("val", "test"):
        items = dataset.splits[name].listed
        unlabelled = items[dataset.targets.unlabelled(items)]
        if len(unlabelled):
            values = {"count": len(unlabelled), "split": name, "path": source.name(int(unlabelled[0]))}
            yield Finding(severity="error", failure=UnlabelledEvaluationImages(**values))


def _classes(dataset: Dataset) -> Iterator[Finding]:
    counts = dataset.summary()["per_class"]
    total = np.sum(list(counts.values()), axis=0)
    if np.count_nonzero(total) < dataset.targets.min_classes:
        names = "".join(f": only {dataset.classes[k]!r} has images" for k in np.flatnonzero(total))
        failure = TooFewClasses(count=int(np.count_nonzero(total)), names=names)
        yield Finding(severity="error" if not total.any() else "warning", failure=failure)
    for label, name in enumerate(dataset.classes):
        empty = [split for split, per_class in counts.items() if not per_class[label]]
        if empty:
            values = {"images": int(total[label]), "noun": dataset.targets.noun}
            yield warning(ClassMissingInSplit(name=name, split=" and ".join(empty), **values))


def _unreadable(
    source: Source,
    dataset: Dataset,
    hashes: dict[int, bytes],
    sizes: dict[int, tuple[int, int]],
    *,
    deep: bool,
) -> Iterator[Finding]:
    """Unreadable images, those found earlier included; `hashes` and `sizes` receive the values of readable images."""
    limit = dataset.splits["train"].max_pixels

    def read(item: int) -> StillroomError | None:
        name = source.name(item)
        try:
            raw = source.read(item)
            hashes[item] = content_hash(raw)
            if deep:
                to_pixels(raw, channels=source.channels, max_pixels=limit, name=name)
            else:
                read_header(raw, max_pixels=limit, name=name)
            sizes[item] = oriented_size(raw, max_pixels=limit, name=name)
        except StillroomError as failure:
            return failure
        return None

    items = np.sort(np.concatenate([split.listed for split in dataset.splits.values()])).tolist()
    failures = dict(zip(items, thread_map(read, items), strict=True))
    for item in items:
        bad, failure = dataset.bad_image_log.bad.get(item), failures[item]
        if failure is None and bad is not None:
            failure = UnreadableImage(path=bad.path, why=bad.why)
        if failure is not None:
            yield Finding(severity="error" if isinstance(failure, SecurityError) else "warning", failure=failure)


def _duplicates(source: Source, dataset: Dataset, hashes: dict[int, bytes]) -> Iterator[Finding]:
    """Images with the same bytes in two splits, which leak from train into val or test."""
    occurrences: dict[bytes, dict[str, int]] = defaultdict(dict)
    for name, split in dataset.splits.items():
        for item in split.listed.tolist():
            if item in hashes:
                occurrences[hashes[item]].setdefault(name, item)
    shared = [copies for copies in occurrences.values() if len(copies) > 1]
    if shared:
        pairs = [" = ".join(f"{split}: {source.name(item)}" for split, item in copies.items()) for copies in shared]
        yield warning(DuplicatesAcrossSplits(count=len(shared), examples=examples(pairs)))

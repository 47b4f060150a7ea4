"""What is wrong with a data set, before anybody trains on it. It tells; only what makes training senseless refuses."""

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
    """Everything wrong with the data, errors first.

    Reads the bytes of every image, test included, to find files that can't be opened and the same bytes in two splits;
    nobody learns from them. A copy that was encoded anew is not found.

    Args:
        source: where the images come from.
        dataset: what `load` made of it.
        deep: whether to decode everything too, which finds damage behind the header and takes longer.
    """
    contents: dict[int, bytes] = {}
    shapes: dict[int, tuple[int, int]] = {}
    found = [*inspect_targets(source, dataset), *_unreadable(source, dataset, contents, shapes, deep=deep)]
    found += [*_copies(source, dataset, contents), *dataset.targets.size_findings(shapes)]
    return sorted(found, key=lambda finding: finding.severity != "error")


def inspect_targets(source: Source, dataset: Dataset) -> list[Finding]:
    """What is wrong with labels, boxes or masks, and with classes; reads no image, but masks."""
    found = [*dataset.targets.target_findings(), *_partners(source, dataset)]
    return found + ([*_unjudged(source, dataset), *_classes(dataset)] if dataset.labelled else [])


def raise_first_error(findings: Iterable[Finding]) -> None:
    """Raises the first error among the findings, if there is one."""
    for finding in findings:
        if finding.severity == "error":
            raise finding.failure


def summary(dataset: Dataset, findings: Iterable[Finding]) -> dict[str, Any]:
    """`Dataset.summary` with the findings, for `--json`."""
    told = [{"severity": finding.severity} | finding.failure.as_dict() for finding in findings]
    return dataset.summary() | {"findings": told}


def _partners(source: Source, dataset: Dataset) -> Iterator[Finding]:
    names = getattr(source, "skipped", [])
    if names:
        yield warning(MissingAnnotationFiles(count=len(names), kind=dataset.kind, examples=examples(names)))


def _unjudged(source: Source, dataset: Dataset) -> Iterator[Finding]:
    """Images of val and test of which nothing is known, while something is known of others."""
    for name in ("val", "test"):
        items = dataset.splits[name].listed
        blind = items[dataset.targets.unlabelled(items)]
        if len(blind):
            values = {"count": len(blind), "split": name, "path": source.name(int(blind[0]))}
            yield Finding(severity="error", failure=UnlabelledEvaluationImages(**values))


def _classes(dataset: Dataset) -> Iterator[Finding]:
    counts = dataset.summary()["per_class"]
    whole = np.sum(list(counts.values()), axis=0)
    if np.count_nonzero(whole) < dataset.targets.min_classes:
        names = "".join(f": only {dataset.classes[k]!r} has images" for k in np.flatnonzero(whole))
        failure = TooFewClasses(count=int(np.count_nonzero(whole)), names=names)
        yield Finding(severity="error" if not whole.any() else "warning", failure=failure)
    for number, name in enumerate(dataset.classes):
        empty = [split for split, found in counts.items() if not found[number]]
        if empty:
            values = {"images": int(whole[number]), "noun": dataset.targets.noun}
            yield warning(ClassMissingInSplit(name=name, split=" and ".join(empty), **values))


def _unreadable(
    source: Source,
    dataset: Dataset,
    contents: dict[int, bytes],
    shapes: dict[int, tuple[int, int]],
    *,
    deep: bool,
) -> Iterator[Finding]:
    """Bad images, those met before included; fills in the hash, and the height and width, of each that can be read."""
    limit = dataset.splits["train"].max_pixels

    def one(item: int) -> StillroomError | None:
        name = source.name(item)
        try:
            raw = source.read(item)
            contents[item] = content_hash(raw)
            if deep:
                to_pixels(raw, channels=source.channels, max_pixels=limit, name=name)
            else:
                read_header(raw, max_pixels=limit, name=name)
            shapes[item] = oriented_size(raw, max_pixels=limit, name=name)
        except StillroomError as failure:
            return failure
        return None

    items = np.sort(np.concatenate([split.listed for split in dataset.splits.values()])).tolist()
    failures = dict(zip(items, thread_map(one, items), strict=True))
    for item in items:
        bad, failure = dataset.bad_image_log.bad.get(item), failures[item]
        if failure is None and bad is not None:
            failure = UnreadableImage(path=bad.path, why=bad.why)
        if failure is not None:
            yield Finding(severity="error" if isinstance(failure, SecurityError) else "warning", failure=failure)


def _copies(source: Source, dataset: Dataset, contents: dict[int, bytes]) -> Iterator[Finding]:
    """Images with the same bytes in two splits: what is in test was learnt by heart in train."""
    places: dict[bytes, dict[str, int]] = defaultdict(dict)
    for name, split in dataset.splits.items():
        for item in split.listed.tolist():
            if item in contents:
                places[contents[item]].setdefault(name, item)
    shared = [copies for copies in places.values() if len(copies) > 1]
    if shared:
        pairs = [" = ".join(f"{split}: {source.name(item)}" for split, item in copies.items()) for copies in shared]
        yield warning(DuplicatesAcrossSplits(count=len(shared), examples=examples(pairs)))

"""What is wrong with a data set, before anybody trains on it. It tells; only what makes training senseless refuses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stillroom.data.dataset import Dataset, content
from stillroom.data.decode import header, pixels
from stillroom.data.sources.source import Source
from stillroom.data.threads import on_threads
from stillroom.errors import Failure

SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found.

    Attributes:
        severity: an "error" stops a run, a "warning" is told.
        failure: code, what, why, effect and fix.
    """

    severity: Literal["error", "warning"]
    failure: Failure

    @property
    def code(self) -> str:
        """`SR-D110`, say."""
        return self.failure.code


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
    found = [*inspect_labels(source, dataset), *_unreadable(source, dataset, contents, deep=deep)]
    found += _copies(source, dataset, contents)
    return sorted(found, key=lambda finding: finding.severity != "error")


def inspect_labels(source: Source, dataset: Dataset) -> list[Finding]:
    """What is wrong with labels and classes; reads no image."""
    return [*_labels(source), *_classes(dataset)]


def refuse(findings: Iterable[Finding]) -> None:
    """Raises the first error among the findings, if there is one."""
    for finding in findings:
        if finding.severity == "error":
            raise finding.failure


def summarise(dataset: Dataset, findings: Iterable[Finding]) -> dict[str, Any]:
    """`Dataset.summary` with the findings, for `--json`."""
    told = [{"severity": finding.severity} | finding.failure.as_dict() for finding in findings]
    return dataset.summary() | {"findings": told}


def _labels(source: Source) -> Iterator[Finding]:
    wrong = np.flatnonzero((source.labels < 0) | (source.labels >= len(source.classes)))
    if len(wrong):
        first = int(wrong[0])
        values = {"label": int(source.labels[first]), "count": len(wrong), "highest": len(source.classes) - 1}
        yield Finding(severity="error", failure=Failure("SR-D113", path=source.name(first), **values))


def _classes(dataset: Dataset) -> Iterator[Finding]:
    counts = dataset.summary()["per_class"]
    whole = np.sum(list(counts.values()), axis=0)
    if np.count_nonzero(whole) < 2:
        names = "".join(f": only {dataset.classes[k]!r} has images" for k in np.flatnonzero(whole))
        failure = Failure("SR-D111", count=int(np.count_nonzero(whole)), names=names)
        yield Finding(severity="error" if not whole.any() else "warning", failure=failure)
    for number, name in enumerate(dataset.classes):
        empty = [split for split, images in counts.items() if not images[number]]
        if empty:
            failure = Failure("SR-D110", name=name, split=" and ".join(empty), images=int(whole[number]))
            yield Finding(severity="warning", failure=failure)


def _unreadable(source: Source, dataset: Dataset, contents: dict[int, bytes], *, deep: bool) -> Iterator[Finding]:
    """Bad images, those met before included; fills `contents` with the hash of each that could be read."""
    limit = dataset.splits["train"].max_pixels

    def one(item: int) -> Failure | None:
        name = source.name(item)
        try:
            raw = source.read(item)
            contents[item] = content(raw)
            if deep:
                pixels(raw, channels=source.channels, max_pixels=limit, name=name)
            else:
                header(raw, max_pixels=limit, name=name)
        except Failure as failure:
            return failure
        return None

    items = np.sort(np.concatenate([split.listed for split in dataset.splits.values()])).tolist()
    failures = dict(zip(items, on_threads(one, items), strict=True))
    for item in items:
        bad, failure = dataset.ledger.bad.get(item), failures[item]
        if failure is None and bad is not None:
            failure = Failure("SR-D102", path=bad.path, why=bad.why)
        if failure is not None:
            yield Finding(severity="error" if failure.code.startswith("SR-S") else "warning", failure=failure)


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
        more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
        examples = "; ".join(pairs[:SHOWN]) + more
        yield Finding(severity="warning", failure=Failure("SR-D112", count=len(shared), examples=examples))

"""Agreement of vectors with a reference's: how often both find the same image nearest."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from stillroom.metrics._search import Places, nearest, unit
from stillroom.metrics.measurement import Measurement, proportion
from stillroom.metrics.metric import Metric
from stillroom.types import Batch, Output, OutputKind, TargetKind

SLACK = 1e-6
"""Cosines that differ by less are equally near: single precision, summed in another order, differs by that much."""


class Neighbours(Metric):
    """Share of images whose nearest image is the same by the answer's vectors and by the reference's, in 0..1.

    Each side searches in its own space by cosine, so the two may have other widths. Where a gallery is, the nearest
    image is one of the gallery; without, one of the other images. No label is read.

    Two images may be equally near, copies for instance. So, with a_i and r_i the images that the two sides find for
    image i, and cos_a and cos_r the cosines by their own vectors, they agree on i if

        cos_r(i, a_i) >= cos_r(i, r_i) - SLACK   and   cos_a(i, r_i) >= cos_a(i, a_i) - SLACK

    A vector that is not finite agrees with nothing, not even with another of its kind. Batches without a reference are
    not counted. Where both widths are equal the figure also says how far the vectors, scaled to length 1, are apart:
    the largest difference of a component, and the mean one.

    Args:
        classes: names in label order; not read.
        gallery: keys of the images that are only compared with.
    """

    output_kind: ClassVar[OutputKind] = "vector"
    target_kind: ClassVar[TargetKind | None] = None

    def __init__(self, *, classes: tuple[str, ...], gallery: Collection[int] = ()):
        super().__init__(classes, rows=("said", "expected", "keys"))
        self.gallery = frozenset(gallery)

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Keep both sides' vectors of the images that both have seen."""
        if reference is not None:
            self._keep(said=output.pred.float(), expected=reference.pred.float(), keys=batch.keys)

    def compute(self) -> dict[str, Measurement]:
        """`agreement`, with its interval; nothing when nobody was compared with, or there is one image alone."""
        said, expected, keys = (self._kept(name) for name in ("said", "expected", "keys"))
        if said is None or expected is None or keys is None:
            return {}
        said, expected = unit(said), unit(expected)
        places = Places.of(keys, self.gallery, torch.ones(len(keys), dtype=torch.bool))
        own, theirs = (nearest(side, places, 1).flatten() for side in (said, expected))
        if not len(own):
            return {}
        same = (own >= 0) & (theirs >= 0)
        for side, best, other in ((expected, theirs, own), (said, own, theirs)):
            query = side[places.queries]
            same &= _cosines(query, side[other]) >= _cosines(query, side[best]) - SLACK
        among = "other" if places.alone else "gallery"
        found = proportion(
            int(same.sum()), len(same), how=f"share of images for which both find the same {among} image nearest"
        )
        return {"agreement": replace(found, extra=_apart(said[places.queries], expected[places.queries]))}


def _cosines(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(1)


def _apart(said: Tensor, expected: Tensor) -> dict[str, float]:
    """What is no number is as far off as can be."""
    if said.shape[1] != expected.shape[1]:
        return {}
    apart = (said - expected).abs().nan_to_num(nan=1.0)
    return {"max_difference": float(apart.max()), "mean_difference": float(apart.mean(1).mean())}

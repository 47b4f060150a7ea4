"""Agreement of vectors with a reference: how often an image has the same nearest neighbour in both."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from stillroom.metrics._search import SearchRows, nearest, unit
from stillroom.metrics.measurement import Measurement, proportion
from stillroom.metrics.metric import Metric
from stillroom.types import Batch, Output, OutputKind, TargetKind

SLACK = 1e-6
"""Cosines that differ by less count as equal: float32 sums in another order differ by about as much."""


class Neighbours(Metric):
    """Share of images that have the same nearest neighbour by the output's vectors and by the reference's, in 0..1.

    Each side is searched by its own cosines, so their widths may differ. The neighbour is an image of the gallery, or
    without a gallery one of the other images. Labels are not used.

    Two images may be equally near, for instance copies. So, with a_i and r_i the nearest neighbours of image i by the
    two sides, and cos_a and cos_r their cosines, the sides agree on i if

        cos_r(i, a_i) >= cos_r(i, r_i) - SLACK   and   cos_a(i, r_i) >= cos_a(i, a_i) - SLACK

    A vector that is not finite agrees with none. Batches without a reference are not counted. Where both widths are
    equal, the figure also holds the largest and the mean difference of the components of the unit vectors.

    Args:
        classes: names in label order; not used.
        gallery_keys: keys of the gallery images.
    """

    output_kind: ClassVar[OutputKind] = "vector"
    target_kind: ClassVar[TargetKind | None] = None

    def __init__(self, *, classes: tuple[str, ...], gallery_keys: Collection[int] = ()):
        super().__init__(classes, rows=("vectors", "reference", "keys"))
        self.gallery_keys = frozenset(gallery_keys)

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Keep the vectors of both sides, and the keys."""
        if reference is not None:
            self._add_rows(vectors=output.pred.float(), reference=reference.pred.float(), keys=batch.keys)

    def compute(self) -> dict[str, Measurement]:
        """`agreement`, with its interval; empty without a reference, or with a single image."""
        vectors, reference, keys = (self._all_rows(name) for name in ("vectors", "reference", "keys"))
        if vectors is None or reference is None or keys is None:
            return {}
        vectors, reference = unit(vectors), unit(reference)
        rows = SearchRows.of(keys, self.gallery_keys, torch.ones(len(keys), dtype=torch.bool))
        own, theirs = (nearest(side, rows, 1).flatten() for side in (vectors, reference))
        if not len(own):
            return {}
        same = (own >= 0) & (theirs >= 0)
        for side, best, other in ((reference, theirs, own), (vectors, own, theirs)):
            query = side[rows.queries]
            same &= _cosines(query, side[other]) >= _cosines(query, side[best]) - SLACK
        pool = "other" if rows.leave_one_out else "gallery"
        found = proportion(
            int(same.sum()), len(same), how=f"share of images whose nearest {pool} image is the same in both"
        )
        return {"agreement": replace(found, extra=_differences(vectors[rows.queries], reference[rows.queries]))}


def _cosines(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(1)


def _differences(vectors: Tensor, reference: Tensor) -> dict[str, float]:
    """A difference that is not finite counts as 1."""
    if vectors.shape[1] != reference.shape[1]:
        return {}
    difference = (vectors - reference).abs().nan_to_num(nan=1.0)
    return {"max_difference": float(difference.max()), "mean_difference": float(difference.mean(1).mean())}

"""Linear probe: accuracy of a linear classifier on the vectors."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from math import sqrt
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from stillroom.metrics._search import SearchRows, unit
from stillroom.metrics.measurement import Measurement, proportion
from stillroom.metrics.metric import Metric
from stillroom.types import Batch, Output, OutputKind

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Candidate values of C, the inverse regularisation strength."""

FOLDS = 3
MAX_ITERATIONS = 200
"""Of the solver. A fit that has not converged is used as it is; cross-validation chooses among the fits."""


class Probe(Metric):
    """Accuracy, in 0..1, of a logistic regression fitted to the gallery's vectors and labels.

    It is scikit-learn's `LogisticRegression` (multinomial cross-entropy + |w|² / 2C, L-BFGS) on vectors scaled to
    length sqrt(D), so that the mean square of a component is 1 for any D. C is the candidate with the most correct
    predictions in a 3-fold cross-validation on the gallery, the smallest of equal ones. The i-th image of a class, in
    the order of keys, is held out in fold i mod 3. So the figure is deterministic, and queries have no influence on C.
    Source: Alain & Bengio 2016, https://arxiv.org/abs/1610.01644

    Images without a label (-1) and gallery vectors that are not finite are left out; a query vector that is not finite
    counts as wrong. There is no figure without a gallery, or with a gallery of one class.

    Args:
        classes: names in label order.
        gallery_keys: keys of the gallery images.
    """

    output_kind: ClassVar[OutputKind] = "vector"

    def __init__(self, *, classes: tuple[str, ...], gallery_keys: Collection[int] = ()):
        super().__init__(classes, rows=("vectors", "labels", "keys"))
        self.gallery_keys = frozenset(gallery_keys)

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Keep the vectors, with their labels and keys."""
        self._add_rows(vectors=output.pred.float(), labels=batch.target, keys=batch.keys)

    def compute(self) -> dict[str, Measurement]:
        """`probe`, with its interval. The chosen C is in `how`."""
        vectors, labels, keys = (self._all_rows(name) for name in ("vectors", "labels", "keys"))
        if vectors is None or labels is None or keys is None:
            return {}
        rows = SearchRows.of(keys, self.gallery_keys, labels >= 0)
        scaled = (unit(vectors) * sqrt(vectors.shape[1])).float()
        finite = scaled.isfinite().all(1)
        pool = rows.pool[finite[rows.pool]]
        if rows.leave_one_out or not len(rows.queries) or len(labels[pool].unique()) < 2:
            return {}
        known, truth = scaled[pool].numpy(), labels[pool].numpy()
        strength = _best_strength(known, truth)
        queries = rows.queries[finite[rows.queries]]
        hits = _hits(_fitted(known, truth, strength), scaled[queries].numpy(), labels[queries].numpy())
        how = f"accuracy of a logistic regression (C = {strength:g}) fitted to {len(pool)} images"
        return {"probe": proportion(hits, len(rows.queries), how=f"{how} of the gallery")}


def _best_strength(vectors: NDArray[Any], labels: NDArray[Any]) -> float:
    """The best C in cross-validation."""
    fold = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        fold[labels == label] = np.arange((labels == label).sum()) % FOLDS
    hits = dict.fromkeys(STRENGTHS, 0)
    for held_out in range(FOLDS):
        rest = fold != held_out
        if len(np.unique(labels[rest])) < 2 or rest.all():
            continue
        for strength in STRENGTHS:
            fitted = _fitted(vectors[rest], labels[rest], strength)
            hits[strength] += _hits(fitted, vectors[~rest], labels[~rest])
    return max(hits, key=lambda strength: hits[strength])


def _fitted(vectors: NDArray[Any], labels: NDArray[Any], strength: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=MAX_ITERATIONS, tol=1e-3).fit(vectors, labels)


def _hits(fitted: Any, vectors: NDArray[Any], labels: NDArray[Any]) -> int:
    return int((fitted.predict(vectors) == labels).sum()) if len(vectors) else 0

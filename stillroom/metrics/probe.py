"""Linear probe: how well a straight cut through the vectors tells the classes."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from math import sqrt
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from stillroom.metrics._search import Places, unit
from stillroom.metrics.measurement import Measurement, proportion
from stillroom.metrics.metric import Metric
from stillroom.types import Batch, Output, OutputKind

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Values of C that are tried."""

FOLDS = 3
STEPS = 200
"""Most iterations of the solver: an unsettled fit is a fit all the same, and the folds judge it."""


class Probe(Metric):
    """Accuracy, in 0..1, of a logistic regression that was fitted to the gallery's vectors and labels.

    Fitted is scikit-learn's `LogisticRegression` (multinomial cross-entropy + |w|² / 2C, L-BFGS) to vectors of length
    sqrt(D), whose components so have a mean square of 1 whatever D is. C is the one of `STRENGTHS` with which most
    images are recognised in a cross-validation on the gallery; of equally good ones the smallest. The i-th image of a
    class, in the order of keys, is held out in fold i mod 3. So nothing is drawn by chance, and the judged images
    decide nothing. The idea: Alain & Bengio 2016, https://arxiv.org/abs/1610.01644

    Images without a label (-1) and vectors of the gallery that are not finite are left out; a judged vector that is
    not finite counts as wrong. There is no figure without a gallery, or with a gallery of one class.

    Args:
        classes: names in label order.
        gallery: keys of the images that are only compared with.
    """

    output_kind: ClassVar[OutputKind] = "vector"

    def __init__(self, *, classes: tuple[str, ...], gallery: Collection[int] = ()):
        super().__init__(classes, rows=("vectors", "labels", "keys"))
        self.gallery = frozenset(gallery)

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Keep the vectors, with their labels and keys."""
        self._keep(vectors=output.pred.float(), labels=batch.target, keys=batch.keys)

    def compute(self) -> dict[str, Measurement]:
        """`probe`, with its interval and the C that was chosen."""
        vectors, labels, keys = (self._kept(name) for name in ("vectors", "labels", "keys"))
        if vectors is None or labels is None or keys is None:
            return {}
        places = Places.of(keys, self.gallery, labels >= 0)
        scaled = (unit(vectors) * sqrt(vectors.shape[1])).float()
        finite = scaled.isfinite().all(1)
        pool = places.pool[finite[places.pool]]
        if places.alone or not len(places.queries) or len(labels[pool].unique()) < 2:
            return {}
        seen, truth = scaled[pool].numpy(), labels[pool].numpy()
        strength = _strength(seen, truth)
        asked = places.queries[finite[places.queries]]
        hits = _hits(_fitted(seen, truth, strength), scaled[asked].numpy(), labels[asked].numpy())
        how = f"share of images recognised by a logistic regression (C = {strength:g}) fitted to {len(pool)} images"
        return {"probe": proportion(hits, len(places.queries), how=f"{how} of the gallery")}


def _strength(vectors: NDArray[Any], labels: NDArray[Any]) -> float:
    """The C that does best on images held out of the gallery."""
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
        return LogisticRegression(C=strength, max_iter=STEPS, tol=1e-3).fit(vectors, labels)


def _hits(fitted: Any, vectors: NDArray[Any], labels: NDArray[Any]) -> int:
    return int((fitted.predict(vectors) == labels).sum()) if len(vectors) else 0

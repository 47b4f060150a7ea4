"""Retrieval of images of the same class: k-NN accuracy and recall@k."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.metrics._paired import mcnemar
from stillroom.metrics._search import SearchRows, in_gallery, nearest, unit
from stillroom.metrics.measurement import Measurement, proportion
from stillroom.metrics.metric import Metric
from stillroom.types import Batch, Output, OutputKind

RANKS = (1, 5, 10)


class Retrieval(Metric):
    """Classification of an image by its nearest neighbours, by cosine. Both figures are shares in 0..1.

        knn         = |{q : most frequent label among the k nearest of q = label_q}| / Q
        recall_at_r = |{q : another query of label_q is among the r other queries nearest to q}| / Q

    `knn` searches the labelled images of the gallery, or without a gallery the other queries (leave-one-out). It equals
    scikit-learn's `KNeighborsClassifier(k, metric="cosine")`: all k votes have equal weight, and of equally frequent
    classes the first in label order is predicted. The protocol is that of Wu et al. 2018
    (https://arxiv.org/abs/1805.01978), section 3.4. Differs: without their weights exp(cosine / 0.07).

    `recall_at_r` does not use the gallery: the queries search among each other, as in Oh Song et al. 2016
    (https://arxiv.org/abs/1511.06452), section 5. Differs: a query that is the only one of its class is left out,
    because it can't be correct. The figure is left out for an r that is not below the number of other queries.

    Images without a label (-1) are neither queries nor neighbours. Of equally near images the one with the smaller key
    comes first. A vector that is not finite is never a neighbour; as a query it counts as wrong.

    Args:
        classes: names in label order.
        gallery_keys: keys of the gallery images.
        k: neighbours that vote, at least 1; all images of the pool where it has fewer.
    """

    output_kind: ClassVar[OutputKind] = "vector"

    def __init__(self, *, classes: tuple[str, ...], gallery_keys: Collection[int] = (), k: int = 5):
        super().__init__(classes, rows=("vectors", "labels", "keys"))
        self.gallery_keys, self.k = frozenset(gallery_keys), k

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Keep the vectors, with their labels and keys."""
        self._add_rows(vectors=output.pred.float(), labels=batch.target, keys=batch.keys)

    def compute(self) -> dict[str, Measurement]:
        """`knn`, `recall_at_1`, `recall_at_5`, `recall_at_10`, with their intervals, as far as they are defined."""
        vectors, labels, keys = (self._all_rows(name) for name in ("vectors", "labels", "keys"))
        if vectors is None or labels is None or keys is None:
            return {}
        vectors = unit(vectors)
        return self._knn(vectors, labels, keys) | self._recalls(vectors, labels, keys)

    def value(self) -> float:
        """`knn` alone, without the second search; 0 where it is undefined."""
        vectors, labels, keys = (self._all_rows(name) for name in ("vectors", "labels", "keys"))
        if vectors is None or labels is None or keys is None:
            return 0.0
        figure = self._knn(unit(vectors), labels, keys).get("knn")
        return float(figure.value) if figure and isinstance(figure.value, float) else 0.0

    def paired(self, other: Metric) -> Measurement | None:
        """The difference of the k-NN accuracies, by McNemar's test."""
        assert isinstance(other, Retrieval)
        if "knn" not in self.compute():
            return None
        return mcnemar(*(one._hits(*one._kept())[0] for one in (self, other)))

    def _kept(self) -> tuple[Tensor, Tensor, Tensor]:
        vectors, labels, keys = (torch.cat(self._rows[name]) for name in ("vectors", "labels", "keys"))
        return unit(vectors), labels, keys

    def _hits(self, vectors: Tensor, labels: Tensor, keys: Tensor) -> tuple[Tensor, SearchRows, int]:
        """Of each query in the order of the keys whether its class is predicted, [Q]; the rows; how many voted."""
        rows = SearchRows.of(keys, self.gallery_keys, labels >= 0)
        found = nearest(vectors, rows, self.k)
        votes = F.one_hot((labels[found] + 1).masked_fill(found < 0, 0), len(self.classes) + 1).sum(1)[:, 1:]
        predicted = votes.argmax(1).masked_fill(votes.sum(1) == 0, -1) if found.numel() else found.new_zeros(0)
        return predicted == labels[rows.queries][: len(predicted)], rows, found.shape[1]

    def _knn(self, vectors: Tensor, labels: Tensor, keys: Tensor) -> dict[str, Measurement]:
        hits, rows, voters = self._hits(vectors, labels, keys)
        if not len(hits):
            return {}
        pool = "the other images" if rows.leave_one_out else f"{len(rows.pool)} images of the gallery"
        how = f"share of images whose class is the most frequent among their {voters} nearest of {pool}"
        return {"knn": proportion(int(hits.sum()), len(hits), how=f"{how}, by cosine")}

    def _recalls(self, vectors: Tensor, labels: Tensor, keys: Tensor) -> dict[str, Measurement]:
        rows = SearchRows.of(keys, (), (labels >= 0) & ~in_gallery(keys, self.gallery_keys))
        own = labels[rows.queries]
        possible = (own[:, None] == torch.arange(len(self.classes))).sum(0)[own] > 1
        if not possible.any():
            return {}
        found = nearest(vectors, rows, max(RANKS))
        right = ((labels[found] == own[:, None]) & (found >= 0))[possible]
        return {f"recall_at_{rank}": _recall(right, rank) for rank in RANKS if rank < len(own) - 1}


def _recall(right: Tensor, rank: int) -> Measurement:
    how = f"share of images with another of their class among the {rank} other images nearest to them, by cosine"
    return proportion(int(right[:, :rank].any(1).sum()), len(right), how=how)

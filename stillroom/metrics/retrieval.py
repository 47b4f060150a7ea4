"""Finding images of the same class by their vectors: k-NN accuracy and recall@k."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.metrics._search import Places, held, nearest, unit
from stillroom.metrics.measurement import Measurement, proportion
from stillroom.metrics.metric import Metric
from stillroom.types import Batch, Output, OutputKind

RANKS = (1, 5, 10)


class Retrieval(Metric):
    """How well the nearest vectors tell an image's class. Nearness is the cosine; both figures are shares in 0..1.

        knn         = |{q : most frequent label among its k nearest = label_q}| / Q
        recall_at_r = |{q : some other query of label_q is among the r other queries nearest to it}| / Q

    `knn` asks the labelled images of the gallery, and without one the other queries (leave-one-out). It is
    scikit-learn's `KNeighborsClassifier(k, metric="cosine")`: all k votes count alike, and of equally frequent classes
    the first in label order wins. The protocol is Wu et al. 2018 (https://arxiv.org/abs/1805.01978), section 3.4,
    without their weights exp(cosine / 0.07), so that there is one number less to choose.

    `recall_at_r` never asks the gallery: queries search among each other, as in Oh Song et al. 2016
    (https://arxiv.org/abs/1511.06452), section 5. Unlike there, a query whose class no other query has, and which
    therefore nobody could get right, is left out. A figure is left out where r others are all the others there are.

    Images without a label (-1) neither ask nor answer. Of equally near images the one with the smaller key is nearer.
    A vector that is not finite finds nothing and is found by nobody; its query counts as wrong.

    Args:
        classes: names in label order.
        gallery: keys of the images that are only compared with.
        k: neighbours that vote, at least 1; where fewer are there, all of them.
    """

    output_kind: ClassVar[OutputKind] = "vector"

    def __init__(self, *, classes: tuple[str, ...], gallery: Collection[int] = (), k: int = 5):
        super().__init__(classes, rows=("vectors", "labels", "keys"))
        self.gallery, self.k = frozenset(gallery), k

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Keep the vectors, with their labels and keys."""
        self._keep(vectors=output.pred.float(), labels=batch.target, keys=batch.keys)

    def compute(self) -> dict[str, Measurement]:
        """`knn`, `recall_at_1`, `recall_at_5`, `recall_at_10`, with their intervals; those that apply."""
        vectors, labels, keys = (self._kept(name) for name in ("vectors", "labels", "keys"))
        if vectors is None or labels is None or keys is None:
            return {}
        vectors = unit(vectors)
        return self._votes(vectors, labels, keys) | self._ranks(vectors, labels, keys)

    def value(self) -> float:
        """`knn` alone, without the second search; 0 when nobody could be asked."""
        vectors, labels, keys = (self._kept(name) for name in ("vectors", "labels", "keys"))
        if vectors is None or labels is None or keys is None:
            return 0.0
        figure = self._votes(unit(vectors), labels, keys).get("knn")
        return float(figure.value) if figure and isinstance(figure.value, float) else 0.0

    def _votes(self, vectors: Tensor, labels: Tensor, keys: Tensor) -> dict[str, Measurement]:
        places = Places.of(keys, self.gallery, labels >= 0)
        found = nearest(vectors, places, self.k)
        if not found.numel():
            return {}
        votes = F.one_hot((labels[found] + 1).masked_fill(found < 0, 0), len(self.classes) + 1).sum(1)[:, 1:]
        said = votes.argmax(1).masked_fill(votes.sum(1) == 0, -1)
        hits = int((said == labels[places.queries]).sum())
        among = "the other images" if places.alone else f"{len(places.pool)} images of the gallery"
        how = f"share of images whose class is the most frequent among their {found.shape[1]} nearest of {among}"
        return {"knn": proportion(hits, len(found), how=f"{how}, by cosine")}

    def _ranks(self, vectors: Tensor, labels: Tensor, keys: Tensor) -> dict[str, Measurement]:
        places = Places.of(keys, (), (labels >= 0) & ~held(keys, self.gallery))
        own = labels[places.queries]
        possible = (own[:, None] == torch.arange(len(self.classes))).sum(0)[own] > 1
        if not possible.any():
            return {}
        found = nearest(vectors, places, max(RANKS))
        right = ((labels[found] == own[:, None]) & (found >= 0))[possible]
        return {f"recall_at_{rank}": _recall(right, rank) for rank in RANKS if rank < len(own) - 1}


def _recall(right: Tensor, rank: int) -> Measurement:
    how = f"share of images that find another of their class among the {rank} other images nearest to them, by cosine"
    return proportion(int(right[:, :rank].any(1).sum()), len(right), how=how)

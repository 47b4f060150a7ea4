"""Vectors against independent references: scikit-learn's neighbours and regression, and loops that follow the words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from stillroom.metrics import _search
from stillroom.metrics._search import SearchRows, nearest, unit
from stillroom.metrics.neighbours import Neighbours
from stillroom.metrics.probe import STRENGTHS, Probe
from stillroom.metrics.retrieval import Retrieval
from stillroom.types import Batch, Output

CLASSES = ("ant", "bee", "cat", "dog")


def vectors(seed: int, n: int, *, integers: bool = False, width: int = 6) -> np.ndarray:
    """[n, D]; small integers make many equal cosines."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, (n, width)).astype(float) + 1e-3 if integers else rng.normal(size=(n, width))


def labels_of(seed: int, n: int, least: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + 1).integers(least, len(CLASSES), n)


def shown(metric, vectors, labels, keys=None, reference=None):
    keys = np.arange(len(vectors)) if keys is None else keys
    batch = Batch(
        images=torch.zeros(len(vectors), 1, 1, 1), target=torch.as_tensor(labels), keys=torch.as_tensor(np.array(keys))
    )
    other = None if reference is None else Output(pred=torch.as_tensor(reference))
    metric.update(Output(pred=torch.as_tensor(vectors)), batch, other)
    return metric.compute()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The sum itself; rounded, so that equal vectors tie here too."""
    return round(float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())), 10)


def naive_order(pool: np.ndarray, query: np.ndarray) -> list[int]:
    """Rows of the pool, the nearest first; of equally near ones the first."""
    return sorted(range(len(pool)), key=lambda row: (-cosine(query, pool[row]), row))


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), stored=st.integers(1, 60), asked=st.integers(1, 30), k=st.integers(1, 9))
def test_knn_is_scikit_learns(seed: int, stored: int, asked: int, k: int) -> None:
    pool, queries = vectors(seed, stored), vectors(seed + 7, asked)
    truth = labels_of(seed, stored + asked)
    fitted = KNeighborsClassifier(min(k, stored), metric="cosine").fit(pool, truth[:stored])
    wanted = (fitted.predict(queries) == truth[stored:]).mean()
    metric = Retrieval(classes=CLASSES, gallery_keys=range(stored), k=k)
    figures = shown(metric, np.concatenate([pool, queries]), truth)
    # single precision inside: cosines of random doubles never come as near to each other as that
    assert figures["knn"].value == pytest.approx(wanted)
    assert metric.value() == figures["knn"].value
    assert figures["knn"].n == asked


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), stored=st.integers(1, 40), asked=st.integers(1, 20), k=st.integers(1, 9))
def test_ties_fall_to_the_first_image_and_the_first_class(seed: int, stored: int, asked: int, k: int) -> None:
    pool, queries = vectors(seed, stored, integers=True), vectors(seed + 7, asked, integers=True)
    truth = labels_of(seed, stored + asked)
    right = 0
    for query, own in zip(queries, truth[stored:], strict=True):
        votes = [truth[row] for row in naive_order(pool, query)[:k]]
        right += max(range(len(CLASSES)), key=votes.count) == own  # max keeps the first of equals
    figures = shown(Retrieval(classes=CLASSES, gallery_keys=range(stored), k=k), np.concatenate([pool, queries]), truth)
    assert figures["knn"].value == pytest.approx(right / asked)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 40), k=st.integers(1, 9), integers=st.booleans())
def test_without_a_gallery_each_image_is_left_out_once(seed: int, n: int, k: int, integers: bool) -> None:
    rows, truth = vectors(seed, n, integers=integers), labels_of(seed, n)
    right = 0
    for own in range(n):
        others = [row for row in range(n) if row != own]
        votes = [truth[others[at]] for at in naive_order(rows[others], rows[own])[:k]]
        right += max(range(len(CLASSES)), key=votes.count) == truth[own]
    assert shown(Retrieval(classes=CLASSES, k=k), rows, truth)["knn"].value == pytest.approx(right / n)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 40), stored=st.integers(0, 10), integers=st.booleans())
def test_recall_is_a_loop_over_the_other_queries(seed: int, n: int, stored: int, integers: bool) -> None:
    rows, truth = vectors(seed, n + stored, integers=integers), labels_of(seed, n + stored, least=-1)
    gallery = range(n, n + stored)
    asked = [row for row in range(n) if truth[row] >= 0]
    possible = [row for row in asked if sum(truth[other] == truth[row] for other in asked) > 1]
    figures = shown(Retrieval(classes=CLASSES, gallery_keys=gallery), rows, truth)
    for rank in (1, 5, 10):
        if not possible or len(asked) - 1 <= rank:
            assert f"recall_at_{rank}" not in figures
            continue
        right = 0
        for own in possible:
            others = [row for row in asked if row != own]
            found = [others[at] for at in naive_order(rows[others], rows[own])[:rank]]
            right += any(truth[row] == truth[own] for row in found)
        figure = figures[f"recall_at_{rank}"]
        assert figure.value == pytest.approx(right / len(possible)) and figure.n == len(possible)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 30), stored=st.integers(0, 12), noise=st.floats(0, 1))
def test_agreement_is_a_loop(seed: int, n: int, stored: int, noise: float) -> None:
    ours = vectors(seed, n + stored)
    theirs = ours + noise * vectors(seed + 3, n + stored)
    pools = [list(range(n, n + stored)) or [row for row in range(n) if row != own] for own in range(n)]
    same = 0
    for own, pool in enumerate(pools):
        first, second = (pool[naive_order(side[pool], side[own])[0]] for side in (ours, theirs))
        same += first == second
    metric = Neighbours(classes=CLASSES, gallery_keys=range(n, n + stored))
    figure = shown(metric, ours, np.zeros(n + stored, np.int64), reference=theirs)["agreement"]
    assert figure.value == pytest.approx(same / n) and figure.n == n
    said, expected = (side[:n] / np.linalg.norm(side[:n], axis=1, keepdims=True) for side in (ours, theirs))
    apart = np.abs(said - expected)
    assert figure.extra["max_difference"] == pytest.approx(apart.max(), abs=1e-6)
    assert figure.extra["mean_difference"] == pytest.approx(apart.mean(), abs=1e-6)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 50), k=st.integers(1, 12), cells=st.integers(1, 200))
def test_the_search_is_the_same_in_pieces(seed: int, n: int, k: int, cells: int) -> None:
    rows = unit(torch.from_numpy(vectors(seed, n, integers=True)))
    places = SearchRows.of(torch.arange(n), range(n // 3), torch.ones(n, dtype=torch.bool))
    whole = nearest(rows, places, k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_search, "MAX_COSINES", cells)
        assert torch.equal(nearest(rows, places, k), whole)
    for query, found in zip(places.queries, whole, strict=True):
        pool = [row for row in places.pool.tolist() if row != query]
        wanted = naive_order(rows[pool].numpy(), rows[query].numpy())[: len(found)]
        assert found.tolist() == [pool[at] for at in wanted]


def test_the_probe_is_scikit_learns_with_the_c_that_the_folds_prefer() -> None:
    truth = labels_of(5, 120)
    rows = vectors(5, 120) + np.eye(4, 6)[truth] * 1.2
    scaled = rows / np.linalg.norm(rows, axis=1, keepdims=True) * np.sqrt(6)
    order = np.random.default_rng(0).permutation(120)  # rows of the gallery come after and between the others
    gallery, asked = order[:80], order[80:]
    seen = np.sort(gallery)
    fold = np.array([sum(truth[row] == truth[own] for row in seen[:at]) % 3 for at, own in enumerate(seen)])
    right = {}
    for strength in STRENGTHS:
        right[strength] = sum(
            int((_regression(strength, scaled[seen[fold != at]], truth[seen[fold != at]])
                 .predict(scaled[seen[fold == at]]) == truth[seen[fold == at]]).sum())
            for at in range(3)
        )  # fmt: skip
    best = max(STRENGTHS, key=lambda strength: right[strength])
    wanted = (_regression(best, scaled[seen], truth[seen]).predict(scaled[asked]) == truth[asked]).mean()
    assert len(set(right.values())) > 1, "the strengths must matter"
    figure = shown(Probe(classes=CLASSES, gallery_keys=gallery.tolist()), rows, truth)["probe"]
    assert figure.value == pytest.approx(wanted) and figure.n == 40
    assert f"C = {best:g}" in figure.how and "80 images" in figure.how
    assert wanted > 0.5


def _regression(strength: float, rows: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=200, tol=1e-3).fit(rows.astype(np.float32), labels)

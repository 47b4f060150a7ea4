"""Metrics of classes: independent libraries agree. What holds for every metric is in the conformance suite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, recall_score

from stillroom.config import plugins
from stillroom.metrics.measurement import wilson
from stillroom.metrics.metric import Metric
from stillroom.types import Batch, Output

CLASSES = ("ant", "bee", "cat", "dog")


def answers(seed: int, n: int, *, integers: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of a student and a teacher, and labels; integers make ties, which must be broken the same way always."""
    rng = np.random.default_rng(seed)
    draw = (lambda: rng.integers(0, 3, (n, 4)).astype(np.float32)) if integers else (lambda: rng.normal(size=(n, 4)))
    student, teacher = (torch.tensor(draw(), dtype=torch.float32) for _ in range(2))
    return student, teacher, torch.tensor(rng.integers(0, 4, n))


def count(metric: Metric, rows: torch.Tensor, parts: tuple[torch.Tensor, ...]) -> Metric:
    student, teacher, labels = (part[rows] for part in parts)
    batch = Batch(images=torch.zeros(len(rows), 1, 1, 1), target=labels, keys=rows)
    metric.update(Output(pred=student), batch, Output(pred=teacher))
    return metric


def fresh(name: str) -> Metric:
    return plugins.pick("metrics", name)(classes=CLASSES)


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 5000), share=st.floats(0, 1))
def test_wilson_is_scipys_and_holds_the_share(n: int, share: float) -> None:
    hits = round(share * n)
    low, high = wilson(hits, n)
    interval = binomtest(hits, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((interval.low, interval.high), abs=1e-12)
    assert 0 <= low <= hits / n <= high <= 1


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 500), share=st.floats(0, 1), times=st.integers(2, 20))
def test_the_same_share_of_more_images_is_surer(n: int, share: float, times: int) -> None:
    hits = round(share * n)
    few, many = wilson(hits, n), wilson(hits * times, n * times)
    assert many[1] - many[0] < few[1] - few[0]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 80))
def test_accuracy_and_recall_are_scikit_learns(seed: int, n: int) -> None:
    parts = answers(seed, n, integers=False)
    predicted, labels = parts[0].numpy().argmax(1), parts[2].numpy()
    accuracy = count(fresh("accuracy"), torch.arange(n), parts).compute()["accuracy"]
    assert accuracy.value == pytest.approx(accuracy_score(labels, predicted))
    present = sorted(set(labels.tolist()))
    expected = recall_score(labels, predicted, labels=present, average=None)
    recall = count(fresh("recall"), torch.arange(n), parts).compute()["recall"]
    assert list(recall.value) == [CLASSES[label] for label in present]
    assert list(recall.value.values()) == pytest.approx(expected.tolist())
    assert recall.extra["n_by_class"] == {CLASSES[c]: int((labels == c).sum()) for c in present}


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 80))
def test_agreement_is_accuracy_with_the_teacher_as_the_truth(seed: int, n: int) -> None:
    parts = answers(seed, n, integers=False)
    agreement = count(fresh("agreement"), torch.arange(n), parts).compute()["agreement"]
    assert agreement.value == pytest.approx(accuracy_score(parts[1].numpy().argmax(1), parts[0].numpy().argmax(1)))


def test_agreement_with_oneself_is_one() -> None:
    student, _, labels = answers(3, 40, integers=False)
    assert count(fresh("agreement"), torch.arange(40), (student, student, labels)).compute()["agreement"].value == 1

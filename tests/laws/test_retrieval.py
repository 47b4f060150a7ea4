"""What holds for metrics of vectors, a gallery included: whole = pieces = shuffled = merged, and shares are shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.metrics.metric import Metric
from stillroom.metrics.neighbours import Neighbours
from stillroom.metrics.probe import Probe
from stillroom.metrics.retrieval import Retrieval
from stillroom.types import Batch, Output

CLASSES = ("ant", "bee", "cat")
KINDS = (Retrieval, Neighbours, Probe)


def parts_of(seed: int, n: int, *, integers: bool) -> tuple[torch.Tensor, ...]:
    """Vectors of a student and a teacher, labels of which some are unknown, and keys in no order."""
    rng = np.random.default_rng(seed)
    draw = (lambda: rng.integers(-1, 2, (n, 4)).astype(np.float32)) if integers else (lambda: rng.normal(size=(n, 4)))
    student, teacher = (torch.tensor(draw(), dtype=torch.float32) for _ in range(2))
    return student, teacher, torch.tensor(rng.integers(-1, 3, n)), torch.tensor(rng.permutation(n) * 3 - 5)


def count(metric: Metric, rows: torch.Tensor, parts: tuple[torch.Tensor, ...]) -> Metric:
    student, teacher, labels, keys = (part[rows] for part in parts)
    batch = Batch(images=torch.zeros(len(rows), 1, 1, 1), target=labels, keys=keys)
    metric.update(Output(pred=student), batch, Output(pred=teacher))
    return metric


def said(metric: Metric) -> dict[str, Any]:
    return {name: figure.as_dict() for name, figure in metric.compute().items()}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 40),
    cut=st.integers(0, 40),
    stored=st.integers(0, 20),
    integers=st.booleans(),
)
def test_whole_is_pieces_is_shuffled_is_merged(
    kind: Any, seed: int, n: int, cut: int, stored: int, integers: bool
) -> None:
    parts, rows = parts_of(seed, n, integers=integers), torch.arange(n)
    gallery = sorted(parts[3].tolist())[:stored]
    fresh = lambda: kind(classes=CLASSES, gallery_keys=gallery)  # noqa: E731
    whole = said(count(fresh(), rows, parts))
    shuffled = rows[torch.from_numpy(np.random.default_rng(seed).permutation(n))]
    assert said(count(fresh(), shuffled, parts)) == whole
    here, there, merged = fresh(), fresh(), fresh()
    for piece, process in ((shuffled[:cut], here), (shuffled[cut:], there)):
        count(process, piece, parts)
    merged.merge(there.state())
    merged.merge(here.state())
    assert said(merged) == whole
    for figure in whole.values():
        assert 0 <= figure["value"] <= 1 and figure["n"] >= 1


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 30), turn=st.integers(0, 99), scale=st.floats(0.01, 100))
def test_a_rotation_and_a_scale_change_nothing(seed: int, n: int, turn: int, scale: float) -> None:
    student, _, labels, keys = parts_of(seed, n, integers=False)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(turn))).Q
    moved = student @ rotation * scale
    whole = count(Retrieval(classes=CLASSES), torch.arange(n), (student, moved, labels, keys)).compute()
    turned = count(Retrieval(classes=CLASSES), torch.arange(n), (moved, moved, labels, keys)).compute()
    assert {name: f.value for name, f in whole.items()} == {name: f.value for name, f in turned.items()}
    agreed = count(Neighbours(classes=CLASSES), torch.arange(n), (student, moved, labels, keys)).compute()
    assert agreed["agreement"].value == 1.0


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 30), stored=st.integers(0, 10))
def test_agreement_is_symmetric_and_one_with_oneself(seed: int, n: int, stored: int) -> None:
    student, teacher, labels, keys = parts_of(seed, n, integers=True)
    gallery = sorted(keys.tolist())[: min(stored, n - 1)]
    both = [(student, teacher), (teacher, student), (student, student)]
    one, other, own = (
        said(count(Neighbours(classes=CLASSES, gallery_keys=gallery), torch.arange(n), (*pair, labels, keys)))
        for pair in both
    )
    assert one == other
    assert own["agreement"]["value"] == 1.0 and own["agreement"]["max_difference"] == 0.0

"""What holds for every layer and every rank."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stillroom.compress import _factors
from stillroom.compress._thin import Site
from stillroom.compress.factorize import _build_thin
from stillroom.models.surgery import factored

CHANNELS = st.integers(1, 9)
SEEDS = st.integers(0, 2**31 - 1)


def weight(seed: int, *size: int) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(SEEDS, CHANNELS, CHANNELS, st.integers(1, 3), st.data())
def test_the_error_of_an_svd_is_the_tail(seed: int, inside: int, outside: int, kernel: int, data: Any) -> None:
    held = weight(seed, outside, inside, kernel, kernel)
    for way, matrix in (("svd", held.flatten(1)), ("spatial", _factors.spatial_matrix(held))):
        values = torch.linalg.svdvals(matrix)
        rank = data.draw(st.integers(1, len(values)))
        error = (held - _factors.compose(way, getattr(_factors, way)(held, rank))).square().sum().item()
        assert error == pytest.approx(values[rank:].square().sum().item(), abs=1e-5)


@given(
    SEEDS, CHANNELS, CHANNELS, st.integers(1, 3), st.integers(1, 2), st.integers(0, 2), st.integers(1, 2), st.booleans()
)
def test_full_rank_says_what_the_layer_says(
    seed: int, inside: int, outside: int, kernel: int, stride: int, padding: int, dilation: int, bias: bool
) -> None:
    torch.manual_seed(seed)
    layer = nn.Conv2d(inside, outside, (kernel, 2), stride, padding, dilation, bias=bias)
    images = torch.randn(2, inside, 9, 8)
    for way in ("svd", "tucker", "spatial"):
        parts = _build_thin(Site("", layer, way, []), factored.max_ranks(layer, way))
        torch.testing.assert_close(parts(images), layer(images), atol=1e-4, rtol=1e-4)
    linear = nn.Linear(inside, outside, bias=bias)
    parts, vectors = _build_thin(Site("", linear, "svd", []), factored.max_ranks(linear, "svd")), images.movedim(1, -1)
    torch.testing.assert_close(parts(vectors), linear(vectors), atol=1e-4, rtol=1e-4)


@given(SEEDS, CHANNELS, CHANNELS, st.floats(0.01, 1))
def test_the_least_rank(seed: int, inside: int, outside: int, share: float) -> None:
    values = torch.linalg.svdvals(weight(seed, outside, inside))
    rank = _factors.min_rank(values, share)
    kept = values.square().cumsum(0) / values.square().sum()
    assert kept[rank - 1] >= share - 1e-12 and (rank == 1 or kept[rank - 2] < share)


@given(SEEDS, CHANNELS, CHANNELS, st.data())
def test_tucker_loses_at_most_what_both_unfoldings_lose(seed: int, inside: int, outside: int, data: Any) -> None:
    held = weight(seed, outside, inside, 3, 3)
    inner, outer = data.draw(st.integers(1, inside)), data.draw(st.integers(1, outside))
    error = (held - _factors.compose("tucker", _factors.tucker(held, inner, outer))).square().sum()
    tails = [
        values[rank:].square().sum()
        for values, rank in zip(_factors.singular_values("tucker", held), (inner, outer), strict=True)
    ]
    assert max(tails) - 1e-9 <= error <= sum(tails) + 1e-9


@given(SEEDS, st.integers(1, 3))
@settings(max_examples=20)
def test_cp_is_repeatable_and_never_worse_than_nothing(seed: int, rank: int) -> None:
    held = weight(seed, 5, 4, 3, 3)
    first, second = _factors.cp(held, rank), _factors.cp(held, rank)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert (held - _factors.compose("cp", first)).norm() <= held.norm() * (1 + 1e-9)

"""Factorising: which layers, which ranks, what it costs, and how well the thin layers say what the layer said."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from stillroom.compress import _factors
from stillroom.compress._thin import Site, find_sites, fit_last_layer
from stillroom.compress.compression import CompressionContext
from stillroom.compress.factorize import Factorize
from stillroom.errors import StillroomError
from stillroom.models import surgery
from stillroom.models.flops import macs_by_module as macs
from stillroom.models.network import Network
from stillroom.models.resnet import CifarResNet
from stillroom.models.surgery import factored
from stillroom.types import Output

WAYS = ("svd", "tucker", "cp", "spatial")


def view(count: int = 64) -> CompressionContext:
    images = torch.tensor(load_digits().images[:count, None] / 16, dtype=torch.float32)
    return CompressionContext(
        images=images, batches=(), loss=lambda n, b: n(b.images).pred.sum(), teacher=lambda x: Output(pred=x), seed=0
    )


def made(width: float = 1.0) -> Network:
    torch.manual_seed(0)
    module = CifarResNet(depth=8, channels=1, width=width)
    network = Network(module, classes=10, channels=1, mean=(0.3,), std=(0.35,), head=("linear",))
    for _ in range(5):
        network(view().images)
    return network.eval()


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("way", "ranks", "count"),
    [("svd", [32], 20480), ("tucker", [32, 32], 13312), ("cp", [32], 4288), ("spatial", [64], 24576)],
)
def test_parameters(way: str, ranks: list[int], count: int) -> None:
    layer = nn.Conv2d(64, 64, 3, bias=False)
    assert parameters(layer) == 36864 and parameters(factored.thin_layers(layer, way, ranks)) == count


def test_parameters_of_a_linear_layer() -> None:
    assert parameters(factored.thin_layers(nn.Linear(20, 30), "svd", [4])) == 4 * (20 + 30) + 30


@pytest.mark.parametrize("way", WAYS)
def test_the_work_is_foretold(way: str) -> None:
    layer = nn.Conv2d(12, 20, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2))
    (site,) = find_sites(nn.Sequential(layer), torch.rand(1, 12, 17, 19), way, 1, ())
    ranks = [3] if way != "tucker" else [3, 4]
    example = torch.rand(1, 12, 17, 19)
    assert site.macs == macs(layer, example)[""]
    assert site.thin_macs(ranks) == macs(factored.thin_layers(layer, way, ranks), example)[""]


def test_the_work_of_a_linear_layer_on_tokens() -> None:
    layer = nn.Linear(12, 20)
    (site,) = find_sites(nn.Sequential(layer), torch.rand(1, 7, 12), "tucker", 1, ())
    assert site.way == "svd" and site.macs == 7 * 240 and site.thin_macs([3]) == 7 * 3 * 32


@pytest.mark.parametrize("way", WAYS)
def test_the_least_rank_that_keeps_the_energy(way: str) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(24, 16, 3)
    with torch.no_grad():  # nearly of low rank, in every one of the four senses
        layer.weight.copy_(_factors.compose("cp", [torch.randn(6, 24, 1, 1), *_lines(6), torch.randn(16, 6, 1, 1)]))
        layer.weight.add_(0.3 * torch.randn_like(layer.weight))
    site = Site("", layer, way, [(100, 100, 100)])
    ranks = site.ranks(0.95)
    assert ranks is not None
    if way == "cp":
        assert site._cp_energy(ranks[0]) >= 0.95 > site._cp_energy(ranks[0] - 1)
    for values, rank in zip(site.values, ranks, strict=False):
        share = values.square().cumsum(0) / values.square().sum()
        assert share[rank - 1] >= 0.95 and (rank == 1 or share[rank - 2] < 0.95)


def _lines(rank: int) -> tuple[Tensor, Tensor]:
    return torch.randn(rank, 1, 3, 1), torch.randn(rank, 1, 1, 3)


@pytest.mark.parametrize("way", ["auto", "svd", "spatial"])
def test_a_share_of_the_work(way: Any) -> None:
    network = made()
    smaller = Factorize(way=way, macs=0.6, match=False).shrink(network, view(), 1)
    example = torch.rand(1, 1, 8, 8)
    share = macs(smaller.module, example)[""] / macs(network.module, example)[""]
    assert 0.6 * 0.97 <= share <= 0.6
    assert isinstance(smaller.module.linear, nn.Linear)


def test_one_rank_for_all() -> None:
    smaller = Factorize(rank=6, match=False).shrink(made(), view(), 1)
    chosen = {tuple(said["ranks"]) for said in smaller.edits[0]["layers"].values()}
    assert chosen == {(6, 6)} and smaller.edits[0]["layers"].keys() == {
        f"layer{i}.0.conv{j}" for i in (1, 2, 3) for j in (1, 2)
    }


def test_rounds_take_shares_of_the_first_network() -> None:
    network, example = made(2), torch.rand(1, 1, 8, 8)
    factorize = Factorize(macs=0.49, rounds=2, match=False, least=4)
    halfway = factorize.finalize(factorize.shrink(network, view(), 1))
    last = factorize.finalize(factorize.shrink(halfway, view(), 2))
    for one, share in ((halfway, 0.7), (last, 0.49)):
        assert share * 0.97 <= macs(one.module, example)[""] / macs(network.module, example)[""] <= share
    once = Factorize(rank=6, rounds=2, match=False)
    first = once.shrink(network, view(), 1)
    assert once.shrink(first, view(), 2).edits == first.edits


class Odd(nn.Module):
    """A layer that is run, one whose weight is read, one with two names, one in groups, a narrow one, a subclass."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.read, self.twice = nn.Conv2d(32, 32, 3, padding=1), nn.Linear(32, 32), nn.Linear(32, 32)
        self.again, self.idle = self.twice, nn.Linear(32, 32)
        self.grouped, self.narrow = nn.Conv2d(32, 32, 3, groups=2), nn.Conv2d(32, 4, 3)
        self.own, self.fc = Own(32, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.plain(x)
        x = self.grouped(x) + self.narrow(x).mean(1, keepdim=True)
        x = self.own(self.again(self.twice(x.mean((2, 3)))))
        return self.fc(F.linear(self.read(x), self.read.weight))


class Own(nn.Linear):
    pass


def test_only_layers_that_can_be_replaced() -> None:
    found = find_sites(Odd(), torch.rand(1, 32, 8, 8), "auto", 16, ["fc"])
    assert [(site.name, site.way) for site in found] == [("plain", "tucker")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_matching_is_never_worse(way: str, padding_mode: str) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 12, 3, stride=2, padding=1, padding_mode=padding_mode)
    site = Site("0", layer, way, [(64, 16, 32)])
    ranks = [3] if way != "tucker" else [3, 4]
    images = (torch.rand(16, 8, 8, 8) ** 3).split(8)
    errors = []
    for matched in (False, True):
        parts = factored.thin_layers(layer, way, ranks)
        with torch.no_grad():
            for part, factor in zip(parts, site.factors(ranks), strict=True):
                part.weight.copy_(factor)
            parts[-1].bias.copy_(layer.bias)
        if matched:
            fit_last_layer(nn.Sequential(layer), {"0": parts}, images)
        with torch.no_grad():
            errors.append(sum((parts(batch) - layer(batch)).square().sum().item() for batch in images))
    assert errors[1] < 0.9 * errors[0]


def test_matching_equals_least_squares() -> None:
    torch.manual_seed(0)
    layer, read = nn.Linear(6, 5), torch.randn(400, 6)
    parts = factored.thin_layers(layer, "svd", [3])
    fit_last_layer(nn.Sequential(layer), {"0": parts}, [read])
    with torch.no_grad():
        rows = torch.cat([parts[0](read), torch.ones(400, 1)], 1)
        best = torch.linalg.lstsq(rows, layer(read)).solution
    torch.testing.assert_close(parts[1].weight, best[:3].T, atol=5e-3, rtol=0)
    torch.testing.assert_close(parts[1].bias, best[3], atol=5e-3, rtol=0)


def test_matching_digits() -> None:
    network = made()
    answers = network(view().images).pred.detach()
    distances = []
    for match in (False, True):
        smaller = Factorize(rank=8, match=match).shrink(network, view(), 1)
        with torch.no_grad():
            distances.append((smaller(view().images).pred - answers).square().mean().item())
    assert distances[1] < 0.7 * distances[0]


def test_nothing_to_gain() -> None:
    with pytest.raises(StillroomError, match="SR-M383"):
        Factorize(energy=1.0).shrink(made(), view(), 1)
    with pytest.raises(StillroomError, match="SR-M383"):
        Factorize(least=500).shrink(made(), view(), 1)
    with pytest.raises(StillroomError, match="SR-M382"):
        Factorize(macs=0.001).shrink(made(), view(), 1)
    assert Factorize(macs=1).shrink(made(), view(), 1).edits == ()


def test_frozen_layers_stay_frozen() -> None:
    network = made()
    network.module.layer1.requires_grad_(False)
    smaller = Factorize(rank=4).shrink(network, view(), 1)
    assert not any(p.requires_grad for p in smaller.module.layer1.parameters())
    assert all(p.requires_grad for p in smaller.module.layer2.parameters())


@pytest.mark.parametrize(
    "layers",
    [
        ["conv1"],
        {"conv1": "svd"},
        {"nothing": {"way": "svd", "ranks": [1]}},
        {"bn1": {"way": "svd", "ranks": [1]}},
        {"": {"way": "svd", "ranks": [1]}},
        {"linear": {"way": "tucker", "ranks": [1, 1]}},
        {"conv1": {"way": "other", "ranks": [1]}},
        {"conv1": {"ranks": [1]}},
        {"conv1": {"way": "svd"}},
        {"conv1": {"way": "svd", "ranks": [0]}},
        {"conv1": {"way": "svd", "ranks": [10**9]}},
        {"conv1": {"way": "svd", "ranks": [1, 1]}},
        {"conv1": {"way": "svd", "ranks": [1.0]}},
        {"conv1": {"way": ["svd"], "ranks": [1]}},
    ],
)
def test_a_form_that_does_not_fit(layers: Any) -> None:
    module = CifarResNet(depth=8)
    before = str(module)
    with pytest.raises((ValueError, TypeError)):
        surgery.apply(module, [{"kind": "factored", "layers": layers}])
    assert str(module) == before


def test_a_layer_in_double_precision() -> None:
    layer = nn.Conv2d(8, 8, 3, padding="same").to(torch.float64).eval()
    parts = factored.thin_layers(layer, "spatial", [4])
    assert parts[0].weight.dtype == torch.float64 and not parts.training
    assert parts(torch.rand(1, 8, 9, 9, dtype=torch.float64)).shape == (1, 8, 9, 9)
    assert copy.deepcopy(parts)[1].bias is not None

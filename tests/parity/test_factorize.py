"""The decompositions against naive loops and numpy; the counts against Torch-Pruning's own counter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from stillroom.compress import _factors
from stillroom.models.flops import macs_by_module as macs
from stillroom.models.resnet import CifarResNet
from stillroom.models.surgery import factored


def loops(way: str, parts: list[np.ndarray]) -> np.ndarray:
    """The kernel that thin layers make, entry by entry."""
    outside, inside = len(parts[-1]), parts[0].shape[1]
    kernel = np.zeros((outside, inside, 3, 3))
    for o, c, i, j in np.ndindex(kernel.shape):
        for r in range(len(parts[0])):
            if way == "svd":
                kernel[o, c, i, j] += parts[0][r, c, i, j] * parts[1][o, r, 0, 0]
            elif way == "spatial":
                kernel[o, c, i, j] += parts[0][r, c, i, 0] * parts[1][o, r, 0, j]
            elif way == "cp":
                line = parts[1][r, 0, i, 0] * parts[2][r, 0, 0, j]
                kernel[o, c, i, j] += parts[0][r, c, 0, 0] * line * parts[3][o, r, 0, 0]
            else:
                for s in range(len(parts[1])):
                    kernel[o, c, i, j] += parts[0][r, c, 0, 0] * parts[1][s, r, i, j] * parts[2][o, s, 0, 0]
    return kernel


@pytest.mark.parametrize(("way", "ranks"), [("svd", [3]), ("tucker", [3, 2]), ("cp", [4]), ("spatial", [3])])
def test_what_thin_layers_compute(way: str, ranks: list[int]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 5, 3, 3, dtype=torch.float64)
    parts = getattr(_factors, way)(weight, *ranks)
    kernel = loops(way, [part.numpy() for part in parts])
    assert np.allclose(_factors.compose(way, parts).numpy(), kernel, atol=1e-10)
    layer = nn.Conv2d(5, 6, 3, padding=1, bias=False).double()
    thin = factored.thin_layers(layer, way, ranks)
    images = torch.randn(2, 5, 7, 7, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(kernel))
        for one, part in zip(thin, parts, strict=True):
            one.weight.copy_(part)
        torch.testing.assert_close(thin(images), layer(images))


def test_svd_is_numpys() -> None:
    weight = np.random.default_rng(0).standard_normal((8, 5, 3, 3))
    left, values, right = np.linalg.svd(weight.reshape(8, -1), full_matrices=False)
    best = (left[:, :3] * values[:3]) @ right[:3]
    found = _factors.compose("svd", _factors.svd(torch.from_numpy(weight), 3)).numpy()
    assert np.allclose(found.reshape(8, -1), best)


def test_tucker_is_at_least_as_good_as_one_pass_of_numpy() -> None:
    weight = np.random.default_rng(0).standard_normal((12, 10, 3, 3))
    made = np.linalg.svd(weight.reshape(12, -1), full_matrices=False)[0][:, :4]
    given = np.linalg.svd(weight.transpose(1, 0, 2, 3).reshape(10, -1), full_matrices=False)[0][:, :5]
    once = np.einsum("ochw,or,sr,ck,dk->sdhw", weight, made, made, given, given)
    found = _factors.compose("tucker", _factors.tucker(torch.from_numpy(weight), 5, 4)).numpy()
    assert np.linalg.norm(weight - found) <= np.linalg.norm(weight - once) + 1e-12


def test_cp_finds_a_sum_of_outer_products_again() -> None:
    draw = np.random.default_rng(0)
    factors = [draw.standard_normal((size, 3)) for size in (8, 7, 3, 3)]
    weight = torch.from_numpy(np.einsum("or,cr,hr,wr->ochw", *factors))
    found = _factors.compose("cp", _factors.cp(weight, 3))
    assert float((weight - found).norm() / weight.norm()) < 0.01


def test_the_count_is_torch_prunings() -> None:
    torch_pruning = pytest.importorskip("torch_pruning")
    layer = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1))
    example = torch.rand(1, 3, 12, 12)
    theirs, _ = torch_pruning.utils.count_ops_and_params(layer, example)
    biases = 8 * 144 + 8 * 100 + 16 * 100  # which they count
    assert macs(layer, example)[""] == theirs - biases
    network = CifarResNet(depth=8)
    assert (
        sum(
            count
            for name, count in macs(network, example).items()
            if name.count(".") == 2 or name in ("conv1", "linear")
        )
        == (macs(network, example)[""])
    )

"""Every file of `compress/`: a new compression is tested here without anybody adding it."""

from __future__ import annotations

import copy
import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

from stillroom.compress.compression import Compression, View
from stillroom.config import plugins
from stillroom.io.checkpoint import save_tensors
from stillroom.models import load_weights
from stillroom.models.network import Network
from stillroom.models.resnet import CifarResNet
from stillroom.types import Batch, Output

SMALL: dict[str, dict[str, Any]] = {"prune": {"macs": 0.6}, "factorize": {"rank": 6}}
"""Arguments with which a compression has something to do on a network this small; it may have it anyway."""

WRONG: dict[str, list[dict[str, Any]]] = {
    "prune": [
        {"macs": 0},
        {"macs": 1.5},
        {"latency": 0},
        {"latency": 2},
        {"importance": "size"},
        {"round_to": 0},
        {"round_to": 1.5},
    ],
    "factorize": [
        {"way": "qr"},
        {"energy": 0},
        {"energy": 1.1},
        {"rank": 0},
        {"rank": 2.5},
        {"macs": -1},
        {"energy": 0.9, "rank": 4},
        {"rank": 4, "macs": 0.5},
        {"least": 0},
    ],
    "quantize": [{"bits": 1}, {"bits": 9}, {"group": 7}],
}


def fresh(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    module = CifarResNet(depth=8, channels=1)
    return Network(module, classes=10, channels=1, size=12, mean=(0.3,), std=(0.35,), head=("linear",)).eval()


def digits(start: int, stop: int) -> Tensor:
    return torch.tensor(load_digits().images[start:stop, None] / 16, dtype=torch.float32)


def loss(network: Network, batch: Batch) -> Tensor:
    return F.cross_entropy(network(batch.images).pred, batch.target)


@pytest.fixture(scope="module")
def network() -> Network:
    network = fresh().train()
    target = torch.tensor(load_digits().target[:256])
    optimiser = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    for _ in range(3):
        for rows in torch.arange(256).split(64):
            optimiser.zero_grad()
            F.cross_entropy(network(digits(0, 256)[rows]).pred, target[rows]).backward()
            optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return network.eval()


@pytest.fixture(scope="module")
def view(network: Network) -> View:
    target, teacher = torch.tensor(load_digits().target), copy.deepcopy(network)

    def batch(start: int) -> Batch:
        rows = torch.arange(start, start + 32)
        return Batch(images=digits(start, start + 32), target=target[rows], keys=rows)

    def teach(images: Tensor) -> Output:
        with torch.no_grad():
            return teacher(images)

    return View(images=digits(0, 64), batches=[batch(0), batch(32)], loss=loss, teacher=teach, seed=0)


@pytest.fixture(scope="module", params=plugins.choices("compress"))
def name(request: Any) -> str:
    return request.param


@pytest.fixture(scope="module")
def compression(name: str) -> Compression:
    made: Compression = plugins.pick("compress", name)(**SMALL.get(name, {}))
    for package in made.needs:
        pytest.importorskip(package)
    return made


@pytest.fixture(scope="module")
def begun(compression: Compression, network: Network, view: View) -> Network:
    return compression.shrink(network, view, 1)


def numbers(network: Network) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def say(network: Network) -> Tensor:
    with torch.no_grad():
        return network(digits(300, 364)).pred


def trained(network: Network) -> Network:
    """A few steps, as training would make them: with norms that count, on the very network that was begun."""
    network = copy.deepcopy(network).train()
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.01)
    target = torch.tensor(load_digits().target)
    for rows in torch.arange(128).split(32):
        optimiser.zero_grad()
        F.cross_entropy(network(digits(0, 128)[rows]).pred, target[rows]).backward()
        optimiser.step()
    return network.eval()


def reopened(network: Network, path: Path) -> Network:
    save_tensors(network.weights(), path, network.metadata())
    return load_weights(fresh(seed=1), path).eval()


def test_the_folder_is_the_registry() -> None:
    assert {"factorize", "prune"} <= set(plugins.choices("compress"))


def test_it_is_what_a_compression_is(name: str) -> None:
    kind = plugins.pick("compress", name)
    module = import_module(kind.__module__)
    made = kind(**SMALL.get(name, {}))
    assert isinstance(made.rounds, int) and made.rounds >= 1 and made.between in ("teacher", "before")
    assert isinstance(kind.needs, tuple) and all(isinstance(package, str) for package in kind.needs)
    assert module.__doc__ and kind.__doc__ and kind.shrink.__doc__ and kind.settle.__doc__
    for parameter in inspect.signature(kind).parameters.values():
        assert parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty
        assert f"{parameter.name}:" in kind.__doc__
    for method in ("shrink", "settle"):
        assert list(inspect.signature(getattr(kind, method)).parameters) == list(
            inspect.signature(getattr(Compression, method)).parameters
        )


def test_wrong_arguments_are_named(name: str) -> None:
    kind = plugins.pick("compress", name)
    given = inspect.signature(kind).parameters
    wrong = WRONG.get(name, [])
    wrong = wrong + ([{"rounds": 0}] if "rounds" in given else []) + ([{"between": "?"}] if "between" in given else [])
    assert wrong
    for arguments in wrong:
        with pytest.raises(ValueError) as caught:
            kind(**arguments)
        assert str(caught.value).split()[0].rstrip(":,") in arguments


def test_the_network_that_comes_in_stays(
    compression: Compression, network: Network, view: View, begun: Network
) -> None:
    before, form, images = numbers(network), network.edits, view.images.clone()
    grads = [parameter.requires_grad for parameter in network.parameters()]
    compression.shrink(network, view, 1)
    assert equal(before, numbers(network)) and network.edits == form and not network.training
    assert grads == [parameter.requires_grad for parameter in network.parameters()]
    assert all(parameter.grad is None for parameter in network.parameters()) and torch.equal(images, view.images)
    before = numbers(begun)
    compression.settle(begun)
    assert equal(before, numbers(begun))


def test_the_same_gives_the_same(compression: Compression, network: Network, view: View, begun: Network) -> None:
    torch.manual_seed(99)
    again = compression.shrink(network, view, 1)
    assert equal(numbers(begun), numbers(again)) and again.edits == begun.edits and torch.equal(say(begun), say(again))


def test_what_begins_is_another_network_ready_to_learn(network: Network, begun: Network) -> None:
    assert begun is not network and begun.edits and not begun.training
    assert not {p.data_ptr() for p in begun.parameters()} & {p.data_ptr() for p in network.parameters()}
    assert all(value.device.type == "cpu" for value in begun.state_dict().values())
    before, learnt = numbers(begun), trained(begun)
    changed = [key for key, p in learnt.named_parameters() if not torch.equal(p, before[key])]
    assert changed and bool(say(learnt).isfinite().all()) and say(learnt).shape == (64, 10)


def test_names_of_the_parts_stay(network: Network, begun: Network) -> None:
    assert set(network.tap_names()) <= set(begun.tap_names()) and begun.head == network.head
    tapped = begun(digits(0, 2), taps=("layer2.0.conv1", "layer3")).taps
    assert tapped["layer3"].shape[0] == tapped["layer2.0.conv1"].shape[0] == 2


def test_copies_say_the_same(compression: Compression, begun: Network) -> None:
    for one in (begun, trained(begun), compression.settle(trained(begun))):
        assert torch.equal(say(copy.deepcopy(one)), say(one)) and copy.deepcopy(one).edits == one.edits


def test_a_file_is_enough_to_go_on(compression: Compression, begun: Network, tmp_path: Path) -> None:
    learnt = trained(begun)
    for one in (begun, learnt):
        back = reopened(one, tmp_path / "begun.safetensors")
        assert torch.equal(say(back), say(one)) and back.edits == one.edits
        assert torch.equal(say(trained(back)), say(trained(one)))
        assert torch.equal(say(compression.settle(back)), say(compression.settle(one)))


def test_a_file_of_what_is_settled(compression: Compression, begun: Network, tmp_path: Path) -> None:
    settled = compression.settle(trained(begun))
    back = reopened(settled, tmp_path / "settled.safetensors")
    assert torch.equal(say(back), say(settled)) and back.edits == settled.edits and not settled.training
    assert equal(back.weights(), settled.weights())
    assert [path.name for path in tmp_path.iterdir()] == ["settled.safetensors"]


def test_what_is_settled_can_begin_again(compression: Compression, begun: Network, view: View, tmp_path: Path) -> None:
    settled = compression.settle(trained(begun))
    again = compression.settle(compression.shrink(settled, view, 2))
    back = reopened(again, tmp_path / "again.safetensors")
    assert torch.equal(say(back), say(again)) and back.edits == again.edits

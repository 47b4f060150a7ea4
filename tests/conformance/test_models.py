"""What every family of models must do. A new file in stillroom/models is tested without anybody adding it."""

from __future__ import annotations

import inspect

import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from stillroom.config.plugins import choices, pick
from stillroom.errors import StillroomError
from stillroom.models import Family, Network, create_model, find_family, list_models, restore
from stillroom.models._family import FileFamily

EVERY = choices("models")
FAMILIES = [name for name in EVERY if not isinstance(pick("models", name)(), FileFamily)]
"""Those that build and train; an opener's networks come out of files, see tests/unit/test_onnx.py."""

STATISTICS = {"mean": (0.3, 0.4, 0.5), "std": (0.2, 0.25, 0.3)}


def make(family: str, *, classes: int | None = 5, channels: int = 3, size: int = 32, **arguments) -> Network:
    torch.manual_seed(0)
    return create_model(
        pick("models", family).example, classes=classes, channels=channels, size=size, **arguments
    ).eval()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def network(family: str) -> Network:
    return make(family)


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    """[6, 1, 8, 8] in 0..1: real handwritten digits."""
    return torch.from_numpy(load_digits().images[:6]).float().unsqueeze(1) / 16


@pytest.fixture(scope="module")
def images(digits: torch.Tensor) -> torch.Tensor:
    """[3, 3, 32, 32]: digits in colours."""
    large = torch.nn.functional.interpolate(digits, (32, 32), mode="bilinear")
    return torch.cat([large[:3], large[3:], 1 - large[:3]], 1)


def test_only_families_are_names() -> None:
    assert {"resnet", "timm", "torchvision", "module"} <= set(FAMILIES)
    assert not {"network", "build", "weights"} & set(EVERY)
    assert set(EVERY) - set(FAMILIES) == {"onnx"}


@pytest.mark.parametrize("name", EVERY)
def test_the_contract(name: str) -> None:
    kind = pick("models", name)
    assert isinstance(kind.example, str) and isinstance(kind.has_pixel_statistics, bool)
    for method in ("matches", "names", "build"):
        wanted, there = (list(inspect.signature(getattr(owner, method)).parameters) for owner in (Family, kind))
        assert wanted == there, method
    assert type(find_family(kind.example)) is kind
    assert [other for other in EVERY if pick("models", other)().matches(kind.example)] == [name]
    assert set(kind().names()) <= set(list_models())


def test_backward_reaches_every_parameter(family: str, images: torch.Tensor) -> None:
    network = make(family).train()
    pred = network(images).pred
    assert pred.shape == (3, 5)
    torch.nn.functional.cross_entropy(pred, torch.tensor([0, 1, 2])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_one_image_alone_says_what_it_says_in_a_batch(network: Network, images: torch.Tensor) -> None:
    with torch.no_grad():
        together, alone = network(images).pred, network(images[1:2]).pred
    torch.testing.assert_close(alone, together[1:2], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[1], rtol=1e-3), "images must matter"


@pytest.mark.parametrize("shape", [(33, 47), (40, 40), (65, 32)])
def test_other_sizes(network: Network, shape: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pred = network(images).pred
    assert pred.shape == (2, 5) and pred.isfinite().all()


def test_tiny_grey_digits(family: str, digits: torch.Tensor) -> None:
    network = make(family, channels=1, size=8)
    with torch.no_grad():
        pred = network(digits).pred
    assert pred.shape == (6, 5) and pred.isfinite().all()


def test_grey_is_repeated_for_a_network_of_colour(network: Network, digits: torch.Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(network(digits).pred, network(digits.repeat(1, 3, 1, 1)).pred)


def test_evaluation_is_deterministic(network: Network, images: torch.Tensor) -> None:
    with torch.no_grad():
        assert torch.equal(network(images).pred, network(images).pred)


def test_one_seed_gives_one_network(family: str, network: Network) -> None:
    again = make(family).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in network.state_dict().items())


def test_making_a_network_leaves_it_in_training_mode(family: str) -> None:
    kind = pick("models", family)
    network = create_model(kind.example, classes=5, channels=3, size=32)
    assert all(module.training for module in network.modules())


def test_taps_are_what_the_parts_give(network: Network, images: torch.Tensor) -> None:
    heard: list[tuple[str, torch.Tensor]] = []
    hooks = [
        part.register_forward_hook(lambda m, i, said, name=name: heard.append((name, said.clone())))
        for name, part in network.module.named_modules()
        if name and not list(part.children())
    ]
    with torch.no_grad():
        pred = network(images).pred
        for hook in hooks:
            hook.remove()
        spread = heard[:: max(1, len(heard) // 5)]
        output = network(images, tuple(name for name, _ in spread))
    assert torch.equal(output.pred, pred)
    assert list(output.taps) == list(dict(spread))
    last = dict(heard)  # a part that runs twice gives its last value
    for name in output.taps:
        assert torch.equal(output.taps[name], last[name]), name
    assert not any(part._forward_hooks for part in network.modules())


def test_a_wrong_tap_is_answered_with_the_nearest(network: Network, images: torch.Tensor) -> None:
    name = max(network.tap_names(), key=len)
    with pytest.raises(StillroomError, match=f"did you mean '{name}'") as caught:
        network(images, (name + "x",))
    assert caught.value.code == "SR-M306"


def test_the_head_reads_features_and_gives_the_answer(network: Network, images: torch.Tensor) -> None:
    assert network.head
    (head,) = network.heads()
    seen: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        pred = network(images).pred
        torch.testing.assert_close(head(seen[0]).flatten(1), pred)
    hook.remove()


def test_a_checkpoint_is_complete(family: str, network: Network, images: torch.Tensor) -> None:
    trained = make(family, **STATISTICS)
    with torch.no_grad():
        for value in trained.state_dict().values():
            value.add_(0.01) if value.is_floating_point() else value.add_(1)
    fresh = make(family)
    fresh.load_state_dict(trained.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(images).pred, trained(images).pred)
        assert not torch.equal(network(images).pred, trained(images).pred)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_saved_student_comes_back_exactly(family: str, channels: int, images: torch.Tensor, tmp_path) -> None:
    student, path = make(family, channels=channels, **STATISTICS), tmp_path / "student.safetensors"
    save_file(student.weights(), path, metadata=student.metadata())
    kind = pick("models", family)
    again = restore(kind.example, path, classes=None, channels=channels, size=32).eval()
    assert (again.classes, again.channels, again.size) == (5, student.channels, student.size)
    with torch.no_grad():
        assert torch.equal(again(images).pred, student(images).pred)


def test_weights_of_other_classes_never_pass_silently(family: str, network: Network, tmp_path) -> None:
    path, example = tmp_path / "student.safetensors", pick("models", family).example
    save_file(network.weights(), path)
    with pytest.raises(StillroomError) as caught:
        restore(example, path, classes=7, channels=3, size=32)
    assert caught.value.code == "SR-M301" and "5 outputs, the data 7 classes" in caught.value.what
    refit = restore(example, path, classes=7, channels=3, size=32, head="replace")
    own = refit.weights()
    kept = [key for key in own if not key.startswith(tuple(f"{name}." for name in network.head))]
    assert refit.classes == 7 and 0 < len(kept) < len(own)
    assert all(torch.equal(own[key], network.weights()[key]) for key in kept)


def test_wrong_arguments(family: str) -> None:
    with pytest.raises(StillroomError, match="banana") as caught:
        make(family, banana=1)
    assert caught.value.code == "SR-M304"


def test_as_many_classes_as_the_model_has(family: str) -> None:
    network = make(family, classes=None)
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 32, 32)).pred.shape == (1, network.classes)
    assert network.classes >= 10

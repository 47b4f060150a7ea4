"""What quantising does to a network: its layers, its form, its files."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

from stillroom import models
from stillroom.compress._input_stats import collect_input_stats
from stillroom.compress._sensitivity import sensitivity
from stillroom.compress.compression import CompressionContext
from stillroom.compress.quantize import Quantize
from stillroom.errors import StillroomError
from stillroom.models.network import Network
from stillroom.models.resnet import CifarResNet
from stillroom.models.surgery import grid
from stillroom.models.surgery.rounded import Rounding
from stillroom.models.surgery.scaled import ScaledLinear

CHOICES: list[dict[str, Any]] = [{}, {"ranges": "learned"}, {"bits": 3, "activations": 4, "keep": 2}]
LINEAR: dict[str, Any] = {"weights_only": True, "bits": 4, "group": 16}


def digits(count: int) -> Tensor:
    """Real handwritten digits [count, 1, 8, 8] in 0..1."""
    return torch.tensor(load_digits().images[:count, None] / 16, dtype=torch.float32)


def view(images: Tensor) -> CompressionContext:
    return CompressionContext(images=images, batches=[], loss=None, teacher=None, seed=0)  # type: ignore[arg-type]


def convolutional() -> Network:
    torch.manual_seed(0)
    network = Network(CifarResNet(depth=8, channels=1, width=0.5), classes=10, channels=1, mean=(0.3,), std=(0.35,))
    for _ in range(5):
        network(digits(200))
    return network.eval()


def transformer(name: str = "vit_tiny_patch16_224") -> Network:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"img_size": 16, "patch_size": 4, "depth": 1, "embed_dim": 48, "num_heads": 3}
    module = timm.create_model(name, num_classes=10, in_chans=1, **arguments)
    return Network(module, classes=10, channels=1, size=16, mean=(0.3,), std=(0.35,)).eval()


def fresh(network: Network) -> Network:
    """The network as its family builds it, with other weights."""
    return convolutional_again() if isinstance(network.module, CifarResNet) else transformer()


def convolutional_again() -> Network:
    return Network(CifarResNet(depth=8, channels=1, width=0.5), classes=10, channels=1, mean=(0.3,), std=(0.35,)).eval()


@pytest.mark.parametrize("arguments", [*CHOICES, LINEAR], ids=["minmax", "learned", "few bits", "linear"])
def test_a_shrunk_and_a_settled_network_survive_a_file_and_a_copy(arguments: Any, tmp_path: Path) -> None:
    network = transformer() if "weights_only" in arguments else convolutional()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    compression, images = Quantize(**arguments), digits(70)
    shrunk = compression.shrink(network, view(images), 1)
    settled = compression.finalize(shrunk)
    assert network.edits == () and all(torch.equal(value, before[k]) for k, value in network.state_dict().items())
    for number, one in enumerate((shrunk, settled)):
        path = tmp_path / f"{number}.safetensors"
        save_file(one.weights(), path, metadata=one.metadata())
        with torch.no_grad():
            expected = one(images).pred
            assert not torch.equal(expected, network(images).pred)
            assert torch.equal(deepcopy(one)(images).pred, expected)
            again = models.load_weights(fresh(network), path)
            assert torch.equal(again(images).pred, expected) and again.edits == one.edits
    with torch.no_grad():
        assert torch.equal(compression.finalize(again_shrunk(network, shrunk, tmp_path))(images).pred, expected)


def again_shrunk(network: Network, shrunk: Network, folder: Path) -> Network:
    save_file(shrunk.weights(), folder / "shrunk.safetensors", metadata=shrunk.metadata())
    return models.load_weights(fresh(network), folder / "shrunk.safetensors")


def test_settling_leaves_plain_layers_on_the_grid_that_the_form_tells() -> None:
    network, compression = convolutional(), Quantize(bits=4, activations=0)
    shrunk = compression.shrink(network, view(digits(70)), 1)
    settled = compression.finalize(shrunk)
    assert list(settled.state_dict()) == list(network.state_dict())
    assert [type(part) for part in settled.modules()] == [type(part) for part in network.modules()]
    names = [n for n, part in network.module.named_modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
    told = {"kind": "grid", "bits": 4, "group": 0, "activations": 0, "layers": names, "float": []}
    assert settled.edits == (told,) and grid.find_grid(settled.edits) == told
    for name in names:
        weight = settled.module.get_submodule(name).weight
        assert all(len(channel.unique()) <= 15 for channel in weight)
    with torch.no_grad():  # nothing but the weights was rounded
        assert torch.equal(settled(digits(70)).pred, shrunk(digits(70)).pred)
    again = compression.shrink(settled, view(digits(70)), 1)
    assert [edit["kind"] for edit in again.edits] == ["rounded"]
    assert [edit["kind"] for edit in compression.finalize(again).edits] == ["grid"]


def test_training_reaches_every_weight_and_moves_ranges_and_evaluation_does_not() -> None:
    images = digits(64)
    for ranges in ("minmax", "learned"):
        shrunk = Quantize(ranges=ranges).shrink(convolutional(), view(images), 1)  # type: ignore[arg-type]
        rounding: Any = shrunk.module.linear.rounding
        held = {name: value.clone() for name, value in rounding.state_dict().items()}
        shrunk(images * 2)
        assert all(torch.equal(value, held[name]) for name, value in rounding.state_dict().items())
        shrunk.train().to(memory_format=torch.channels_last)
        shrunk(images * 2, ("layer1.0.conv1", "linear:in")).pred.square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in shrunk.parameters())
        if ranges == "minmax":
            assert rounding.high > held["high"] and shrunk.module.linear.weight.grad_fn is not None
        else:
            assert rounding.step.grad != 0


def test_pixels_are_read_as_they_are_and_everything_else_on_a_grid() -> None:
    images, shrunk = digits(100), Quantize(activations=3).shrink(convolutional(), view(digits(100)), 1)
    assert shrunk.edits[-1]["exact"] == ["conv1"] and not list(shrunk.module.conv1.rounding.buffers())
    read: dict[str, Tensor] = {}
    for name in ("layer1.0.conv2", "linear"):
        layer: Any = shrunk.module.get_submodule(name)
        layer.rounding.register_forward_hook(lambda _, given, said, name=name: read.update({name: said}))
    with torch.no_grad():
        shrunk(images)
    assert all(2 < len(values.unique()) <= 8 for values in read.values()) and len(read) == 2


def test_the_worst_layers_stay_in_floats() -> None:
    network, images = convolutional(), digits(100)
    seen = collect_input_stats(network, images)
    edit = Quantize(bits=3, activations=3)._edit(seen, [])
    costs = sensitivity(network, edit, seen, images)
    assert list(costs) == sorted(costs, key=lambda name: -costs[name]) and set(costs) == set(seen)
    worst = list(costs)[:2]
    with torch.no_grad():  # by hand, for the worst one: it alone is rounded
        alone = deepcopy(network)
        alone.apply_edits([edit | {"layers": worst[:1]}])
        alone.module.get_submodule(worst[0]).rounding.begin(  # type: ignore[union-attr, operator]
            seen[worst[0]].low, seen[worst[0]].high, float(seen[worst[0]].mean_abs.mean())
        )
        p, q = network(images).pred.log_softmax(1), alone(images).pred.log_softmax(1)
    expected = nn.functional.kl_div(q, p, log_target=True, reduction="batchmean")
    assert costs[worst[0]] == pytest.approx(float(expected), rel=1e-4)
    shrunk = Quantize(bits=3, activations=3, keep=2).shrink(network, view(images), 1)
    kept = Quantize().finalize(shrunk)
    assert kept.edits[-1]["float"] == sorted(worst) and not set(worst) & set(kept.edits[-1]["layers"])
    for name in worst:
        assert torch.equal(kept.module.get_submodule(name).weight, network.module.get_submodule(name).weight)


def test_learned_and_minmax_begin_alike_with_eight_bits() -> None:
    images, network = digits(70), convolutional()
    said = [Quantize(ranges=r).shrink(network, view(images), 1)(images).pred for r in ("minmax", "learned")]  # type: ignore[arg-type]
    torch.testing.assert_close(*said, rtol=0, atol=0.05)


def test_scaling_changes_nothing_in_floats_and_lowers_the_error_on_the_grid() -> None:
    network, images = transformer(), digits(70)
    with torch.no_grad():  # a few channels far larger than the others, as trained transformers have
        network.module.blocks[0].norm2.weight[:2] *= 30
    errors = {}
    for scaling in ("awq", "none"):
        compression = Quantize(scaling=scaling, **LINEAR)  # type: ignore[arg-type]
        settled = compression.finalize(compression.shrink(network, view(images), 1))
        errors[scaling] = float((settled(images).pred - network(images).pred).detach().square().mean())
    scaled = [edit for edit in Quantize(**LINEAR).shrink(network, view(images), 1).edits if edit["kind"] == "scaled"]
    assert "blocks.0.mlp.fc1" in scaled[0]["layers"] and errors["awq"] < errors["none"]
    plain = deepcopy(network)
    plain.apply_edits(scaled)
    layer = plain.module.get_submodule("blocks.0.mlp.fc1")
    assert isinstance(layer, ScaledLinear) and {"weight", "bias", "scale"} == set(layer.state_dict())
    with torch.no_grad():
        assert torch.equal(plain(images).pred, network(images).pred)
        layer.scale.mul_(4)
        layer.weight.mul_(4)
        torch.testing.assert_close(plain(images).pred, network(images).pred)


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight / self.weight.std(), self.bias)


class Reader(nn.Module):
    """A convolution that changes its weights, a linear layer that is never called, and one that is."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.used, self.called = Standardised(1, 4, 3), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.called(self.stem(x).mean((2, 3)) @ self.used.weight)


def test_layers_whose_weights_mean_something_else_are_left_alone() -> None:
    network = Network(Reader(), classes=3, channels=1, mean=(0.3,), std=(0.35,)).eval()
    shrunk = Quantize().shrink(network, view(digits(4)), 1)
    assert shrunk.edits[-1]["layers"] == ["called"] and shrunk.edits[-1]["exact"] == []
    assert torch.equal(shrunk.module.stem.weight, network.module.stem.weight)


def test_timms_own_convolution_with_padding_as_tensorflow_has_it_rounds_too() -> None:
    module = timm.create_model("tf_efficientnet_lite0", num_classes=3, in_chans=1)
    module.blocks = module.blocks[:1]
    module.conv_head = nn.Conv2d(16, 1280, 1)
    network = Network(module, classes=3, channels=1, size=32, mean=(0.3,), std=(0.35,)).eval()
    shrunk = Quantize().shrink(network, view(digits(2)), 1)
    settled = Quantize().finalize(shrunk)
    assert "conv_stem" in shrunk.edits[-1]["layers"] and shrunk.edits[-1]["exact"] == ["conv_stem"]
    assert type(settled.module.conv_stem).__name__ == "Conv2dSame"
    assert torch.equal(settled.module.conv_stem.weight, shrunk.module.conv_stem.weight)


def test_one_image_and_a_layer_of_nothing_are_enough() -> None:
    network = convolutional()
    with torch.no_grad():
        network.module.layer3[0].conv2.weight.zero_()
        network.module.linear.weight[3] = 0
    for arguments in CHOICES:
        compression = Quantize(**arguments)
        shrunk = compression.shrink(network, view(digits(1)), 1).train()
        shrunk.module.bn1.eval()
        shrunk(digits(8)).pred.sum().backward()
        settled = compression.finalize(shrunk)
        assert settled(digits(1)).pred.isfinite().all() and not settled.training
        assert (settled.module.layer3[0].conv2.weight == 0).all() and (settled.module.linear.weight[3] == 0).all()


def test_what_is_not_finite_moves_no_range_and_is_not_hidden() -> None:
    rounding = Rounding(bits=8, group=0, activations=8, ranges="minmax").train()
    rounding.begin(-1.0, 1.0, 0.5)
    for value in (float("nan"), float("inf"), -float("inf")):
        said = rounding(torch.tensor([[0.5, value]]))
        assert rounding.low.isfinite() and rounding.high.isfinite() and said[0, 0].isfinite()
        assert bool(said[0, 1].isnan()) == (value != value)
    assert rounding(torch.zeros(0, 3)).shape == (0, 3)
    half = rounding.eval()(torch.tensor([[0.5]], dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16 and half.item() == pytest.approx(0.5, abs=0.01)


def test_what_cannot_be_rounded_is_refused() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    nothing = Network(Mean(), classes=1, channels=1, mean=(0.3,), std=(0.35,)).eval()
    for network, arguments, code in (
        (nothing, {}, "SR-M385"),
        (nothing, {"weights_only": True}, "SR-M385"),
        (convolutional(), {"keep": 8}, "SR-M386"),
    ):
        with pytest.raises(StillroomError) as caught:
            Quantize(**arguments).shrink(network, view(digits(3)), 1)  # type: ignore[arg-type]
        assert caught.value.code == code


@pytest.mark.parametrize(
    "wrong",
    [
        {"bits": 1},
        {"bits": 9},
        {"activations": 1},
        {"weights_only": True, "bits": 3},
        {"group": 20},
        {"keep": -1},
        {"ranges": "none"},
        {"scaling": "gptq"},
    ],
)
def test_wrong_arguments(wrong: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{next(reversed(wrong))}\b|^bits"):
        Quantize(**wrong)


def test_a_form_that_does_not_fit_is_refused() -> None:
    edit = Quantize()._edit(collect_input_stats(convolutional(), digits(2)), [])
    for network, wrong in (
        (convolutional(), edit | {"layers": ["bn9"]}),
        (convolutional(), edit | {"layers": ["layer1"]}),
        (convolutional(), edit | {"bits": 11}),
        (convolutional(), {"kind": "scaled", "layers": ["conv1"]}),
    ):
        with pytest.raises((ValueError, AttributeError)):
            network.apply_edits([wrong])

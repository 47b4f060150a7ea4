"""Pruning: what goes, what stays, and what the network then says."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from stillroom.compress import prune as prune_file
from stillroom.compress._channels import Channels
from stillroom.compress._timing import time_ratio
from stillroom.compress.compression import CompressionContext
from stillroom.compress.prune import Prune
from stillroom.errors import StillroomError
from stillroom.models import surgery
from stillroom.models.network import Network
from stillroom.models.resnet import CifarResNet
from stillroom.models.surgery import pruned
from stillroom.types import Batch, Output


def digits(count: int) -> Tensor:
    return torch.tensor(load_digits().images[:count, None] / 16, dtype=torch.float32)


def view(images: Tensor, batches: Any = ()) -> CompressionContext:
    def loss(network: Network, batch: Batch) -> Tensor:
        return F.cross_entropy(network(batch.images).pred, batch.target)

    return CompressionContext(images=images, batches=batches, loss=loss, teacher=lambda x: Output(pred=x), seed=0)


class Concat(nn.Module):
    """Two branches side by side, as in a DenseNet; later a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 32, 1)
        self.norm = nn.BatchNorm2d(48)
        self.mix = nn.Conv2d(48, 32, 1)
        self.grouped = nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(torch.cat([self.left(x), self.right(x)], 1)))
        return self.fc(F.relu(self.grouped(F.relu(self.mix(x)))).mean((2, 3)))


def vit() -> nn.Module:
    return VisionTransformer(img_size=16, patch_size=4, num_classes=10, embed_dim=48, depth=2, num_heads=3)


def residual() -> nn.Module:
    return ResNet(BasicBlock, (1, 1, 1, 1), num_classes=10, channels=(32, 64, 128, 256), zero_init_last=False)


MODULES = {
    "cifar": (lambda: CifarResNet(depth=8), "linear"),
    "residual": (residual, "fc"),
    "depthwise": (lambda: timm.create_model("mobilenetv3_small_050", num_classes=10), "classifier"),
    "concat": (Concat, "fc"),
    "attention": (vit, "head"),
}


def made(name: str, size: int = 16) -> Network:
    torch.manual_seed(0)
    build, head = MODULES[name]
    network = Network(build(), classes=10, size=size, head=(head,))
    with torch.no_grad():
        for parameter in network.parameters():  # no norm scale is alike, and none of them zero
            parameter.add_(0.1 * torch.rand_like(parameter))
        for _ in range(3):
            network(torch.rand(8, 3, size, size))
    return network.eval()


def by_hand(module: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates from the sizes of what layers read and give."""
    total = 0

    def layer(part: Any, given: Any, said: Tensor) -> None:
        nonlocal total
        total += said.numel() * part.weight[0].numel()

    def attention(part: Any, given: Any, said: Tensor) -> None:
        nonlocal total
        total += 2 * given[0].shape[1] ** 2 * part.qkv.out_features // 3

    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            part.register_forward_hook(layer)
        elif hasattr(part, "qkv"):
            part.register_forward_hook(attention)
    with torch.no_grad():
        module(example)
    return total


def work(network: Network, size: int) -> int:
    return by_hand(copy.deepcopy(network.module), torch.zeros(1, network.channels, size, size))


@pytest.mark.parametrize(
    ("name", "everywhere"), [*((name, False) for name in MODULES), ("cifar", True), ("attention", True)]
)
def test_the_share_is_met_and_the_network_still_learns(name: str, everywhere: bool) -> None:
    size = 32 if name in ("residual", "depthwise") else 16
    network = made(name, size)
    smaller = Prune(macs=0.6, everywhere=everywhere).shrink(network, view(torch.rand(2, 3, size, size)), 1)
    share = work(smaller, size) / work(network, size)
    fine = name in ("residual", "depthwise")  # the others' steps are a quarter of a layer
    assert 0.6 * (0.98 if fine else 0.9) <= share <= 0.6
    smaller.train()
    smaller(torch.rand(4, 3, size, size)).pred.sum().backward()
    assert all(parameter.grad is not None for parameter in smaller.module.parameters())
    assert smaller(torch.rand(4, 3, size, size)).pred.shape == (4, 10)


@pytest.mark.parametrize("name", MODULES)
def test_channels_that_are_zero_go_unnoticed(name: str) -> None:
    """In float64, where the order of a sum's terms changes its sixteenth digit: the network must stay the same."""
    network = made(name)
    module, example = network.module.double(), torch.randn(4, 3, 16, 16, dtype=torch.float64)
    channels = Channels(module, example, network.head)
    chosen = [i for i, unit in enumerate(channels.groups) if not any(_is_layer_norm(dep) for dep, _ in unit.group)]
    with torch.no_grad():
        for index in chosen:
            unit = channels.groups[index]
            gone = {place + part * unit.size for part in range(unit.blocks) for place in range(1, unit.size, 3)}
            for item in unit.group:
                _zero(channels, item, gone)
        expected = module(example)
        scores = channels.scores("magnitude")
    plan = tuple(channels.groups[i].size - len(range(1, channels.groups[i].size, 3)) for i in chosen)
    before = sum(parameter.numel() for parameter in module.parameters())
    channels.prune(plan, [scores[i] for i in chosen], chosen)
    assert len(chosen) > 1 and sum(parameter.numel() for parameter in module.parameters()) < 0.8 * before
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(example), expected, atol=1e-10, rtol=1e-10)


def _is_layer_norm(dep: Any) -> bool:
    return isinstance(dep.target.module, nn.LayerNorm)  # it looks at how many channels there are


def _zero(channels: Channels, item: Any, gone: set[int]) -> None:
    part, out = item.dep.target.module, channels.graph.is_out_channel_pruning_fn(item.dep.handler)
    indices = [index for index, root in zip(item.idxs, item.root_idxs, strict=True) if root in gone]
    if isinstance(part, nn.BatchNorm2d) or (out and isinstance(part, (nn.Conv2d, nn.Linear))):
        part.weight[indices] = 0
        if part.bias is not None:
            part.bias[indices] = 0
    elif isinstance(part, (nn.Conv2d, nn.Linear)):
        width = part.weight.shape[1]
        for index in indices:
            rows = len(part.weight) // getattr(part, "groups", 1)
            group = index // width
            part.weight[group * rows : (group + 1) * rows, index % width] = 0


def test_a_zero_block_by_hand() -> None:
    network = made("cifar").double()
    block = network.module.layer1[0]
    gone = [0, 3, 5, 6, 9, 11, 12, 15]
    with torch.no_grad():
        block.conv1.weight[gone], block.bn1.weight[gone], block.bn1.bias[gone] = 0, 0, 0
        block.conv2.weight[:, gone] = 0
    images = torch.rand(4, 3, 16, 16, dtype=torch.float64)
    channels = Channels(copy.deepcopy(network.module), images, ["linear"])
    index = next(i for i, unit in enumerate(channels.groups) if ("layer1.0.conv1", "out") in unit.shares)
    channels.prune((8,), [channels.scores("magnitude")[index]], [index])
    kept = [i for i in range(16) if i not in gone]
    assert torch.equal(channels.module.layer1[0].conv1.weight, block.conv1.weight[kept])
    torch.testing.assert_close(channels.module.eval()(images), network.module(images), atol=1e-10, rtol=1e-10)


def test_parameters_go_with_the_square_of_the_channels() -> None:
    torch.manual_seed(0)
    module = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
    network = Network(module, classes=10, size=64, head=("fc",)).eval()
    smaller = Prune(macs=0.3).shrink(network, view(torch.rand(2, 3, 64, 64)), 1)
    layers = [
        [part.out_channels for part in one.modules() if isinstance(part, nn.Conv2d)] for one in (network, smaller)
    ]
    kept = sum(layers[1]) / sum(layers[0])
    sizes = [sum(parameter.numel() for parameter in one.parameters()) for one in (network, smaller)]
    assert kept < 0.6 and 1 - sizes[1] / sizes[0] == pytest.approx(1 - kept**2, abs=0.03)
    assert all(count % 8 == 0 for count in layers[1])


def test_heads_stay_and_get_narrower() -> None:
    smaller = Prune(macs=0.5).shrink(made("attention"), view(torch.rand(2, 3, 16, 16)), 1)
    attention = smaller.module.blocks[0].attn
    assert attention.num_heads == 3 and attention.head_dim < 16
    assert attention.qkv.out_features == 3 * 3 * attention.head_dim
    assert attention.scale == attention.head_dim**-0.5


def test_padded_shortcuts_keep_their_channels() -> None:
    smaller = Prune(macs=0.4).shrink(made("cifar"), view(torch.rand(2, 3, 16, 16)), 1)
    outside = [part.conv2.out_channels for part in smaller.modules() if hasattr(part, "conv2")]
    assert outside == [16, 32, 64] and smaller.module.layer3[0].conv1.out_channels < 64


def test_scores_by_hand() -> None:
    torch.manual_seed(0)
    first, norm, second = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, -2, 1, 3]))
    module = nn.Sequential(first, norm, nn.ReLU(), second).eval()
    channels = Channels(module, torch.rand(1, 1, 8, 8), ["3"])
    (size,) = channels.scores("magnitude")
    (scale,) = channels.scores("bn")
    module(torch.rand(2, 1, 8, 8)).square().sum().backward()
    (slope,) = channels.scores("taylor")
    for i in range(4):
        pieces = [(first.weight[i], first.weight.grad[i]), (norm.weight[i], norm.weight.grad[i])]
        pieces.append((second.weight[:, i], second.weight.grad[:, i]))
        assert size[i].item() == pytest.approx(sum(w.square().sum().item() for w, _ in pieces) / 3, rel=1e-5)
        assert slope[i].item() == pytest.approx(sum(abs((w * g).sum().item()) for w, g in pieces) / 3, rel=1e-4)
    assert scale.tolist() == [0.5, 2, 1, 3]


def test_taylor_asks_the_loss() -> None:
    network = made("cifar").double()
    block = network.module.layer1[0]
    with torch.no_grad():  # large weights behind a dead relu: magnitude keeps them, the loss does not care
        block.conv1.weight[:4] *= 10
        block.bn1.weight[:4], block.bn1.bias[:4] = 0.01, -10
    batch = Batch(images=torch.rand(8, 3, 16, 16), target=torch.arange(8), keys=torch.arange(8))
    seen = view(batch.images, [batch, batch])
    kept = {}
    for importance in ("magnitude", "taylor"):
        smaller = Prune(macs=0.6, importance=importance).shrink(network, seen, 1)
        weight = smaller.module.layer1[0].conv1.weight
        kept[importance] = sum(bool((weight == row).flatten(1).all(1).any()) for row in block.conv1.weight[:4])
    assert kept == {"magnitude": 4, "taylor": 0}


def test_ranking_everywhere_takes_from_the_weak_layer() -> None:
    network = made("cifar")
    with torch.no_grad():
        channels = network.module.layer3[0]
        for weight in (channels.conv1.weight, channels.bn1.weight, channels.bn1.bias):
            weight[:40] *= 1e-3
        channels.conv2.weight[:, :40] *= 1e-3
    seen = view(torch.rand(2, 3, 16, 16))
    widths = [
        Prune(macs=0.75, everywhere=everywhere).shrink(network, seen, 1).module.layer3[0].conv1.out_channels
        for everywhere in (False, True)
    ]
    assert widths[1] < widths[0]


def test_rounds_take_shares_of_the_first_network() -> None:
    network, prune, seen = made("residual", 32), Prune(macs=0.36, rounds=2), view(torch.rand(2, 3, 32, 32))
    halfway = prune.finalize(prune.shrink(network, seen, 1))
    last = prune.finalize(prune.shrink(halfway, seen, 2))
    for one, share in ((halfway, 0.6), (last, 0.36)):
        assert share * 0.98 <= work(one, 32) / work(network, 32) <= share
    assert [edit["kind"] for edit in last.edits] == ["pruned", "pruned"]


def test_time_instead_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def clock(module: nn.Module, other: nn.Module, example: Tensor) -> float:
        return 0.3 + 0.7 * by_hand(copy.deepcopy(other), example) / by_hand(copy.deepcopy(module), example)

    monkeypatch.setattr(prune_file, "time_ratio", clock)
    network, seen = made("cifar"), view(torch.rand(2, 3, 16, 16))
    smaller = Prune(latency=0.7).shrink(network, seen, 1)
    assert 0.6 < clock(network.module, smaller.module, torch.zeros(1, 3, 16, 16)) <= 0.7
    with pytest.raises(StillroomError, match="SR-M382"):
        Prune(latency=0.2).shrink(network, seen, 1)


def test_time_is_a_ratio() -> None:
    small, large = nn.Conv2d(3, 8, 3), nn.Sequential(*[nn.Conv2d(3, 64, 3), *[nn.Conv2d(64, 64, 3) for _ in range(3)]])
    threads = torch.get_num_threads()
    assert (
        time_ratio(large, small, torch.rand(1, 3, 32, 32))
        < 0.5
        < 2
        < time_ratio(small, large, torch.rand(1, 3, 32, 32))
    )
    assert torch.get_num_threads() == threads


def test_frozen_weights_stay_frozen_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    network = made("attention")
    network.module.patch_embed.requires_grad_(False)
    smaller = Prune(macs=0.5).shrink(network, view(torch.rand(2, 3, 16, 16)), 1)
    flags = {name: p.requires_grad for name, p in smaller.module.named_parameters()}
    assert flags == {name: p.requires_grad for name, p in network.module.named_parameters()}
    assert all(p.grad is None for p in network.parameters()) and capsys.readouterr() == ("", "")


def test_all_of_the_work_is_no_change() -> None:
    network = made("cifar")
    assert Prune(macs=1).shrink(network, view(torch.rand(2, 3, 16, 16)), 1).edits == ()


def test_groups_that_read_two_layers_side_by_side_stay() -> None:
    module = made("concat").module
    module.mix = nn.Identity()
    module.grouped = nn.Conv2d(48, 32, 3, padding=1, groups=4)
    channels = Channels(module, torch.rand(1, 3, 16, 16), ["fc"])
    assert [unit.shares for unit in channels.groups] == [{("grouped", "out"): 4 / 32, ("fc", "in"): 4 / 32}]


def test_an_embedding_keeps_its_width() -> None:
    torch.manual_seed(0)
    module = residual()
    module.fc = nn.Identity()
    network = Network(module, classes=0, size=32, output_kind="vector").eval()
    smaller = Prune(macs=0.7).shrink(network, view(torch.rand(2, 3, 32, 32)), 1)
    assert smaller(torch.rand(2, 3, 32, 32)).pred.shape == (2, 256)


def test_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = view(torch.rand(2, 3, 16, 16))
    with pytest.raises(StillroomError, match="SR-M382"):
        Prune(macs=0.001).shrink(made("cifar"), seen, 1)
    with pytest.raises(StillroomError, match=r"SR-M381.*\n.*batch norm"):
        Prune(importance="bn").shrink(made("attention"), seen, 1)
    detector = made("cifar")
    detector.output_kind = "boxes"
    with pytest.raises(StillroomError, match=r"SR-M381.*\n.*boxes"):
        Prune().shrink(detector, seen, 1)
    network = made("cifar")
    with torch.no_grad():
        network.module.layer1[0].conv1.weight[0] = torch.nan
    with pytest.raises(StillroomError, match=r"SR-M381.*\n.*finite"):
        Prune().shrink(network, seen, 1)
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(StillroomError, match=r"SR-M380(.*\n)*.*stillroom\[prune\]"):
        Prune().shrink(made("cifar"), seen, 1)


@pytest.mark.parametrize(
    "edit",
    [
        {"shapes": {"conv1.nothing": [8]}},
        {"shapes": {"nothing.weight": [8, 3, 3, 3]}},
        {"shapes": {"conv1.weight": [17, 3, 3, 3]}},
        {"shapes": {"conv1.weight": [8, 3, 3]}},
        {"shapes": {"conv1.weight": [0, 3, 3, 3]}},
        {"shapes": {"conv1.weight": [True, 3, 3, 3]}},
        {"shapes": {"conv1.weight": 8}},
        {"shapes": ["conv1.weight"]},
        {"attributes": {"conv1": {"out_channels": 17}}},
        {"attributes": {"conv1": {"out_channels": -1}}},
        {"attributes": {"conv1": {"out_channels": 7.5}}},
        {"attributes": {"conv1": {"training": 0}}},
        {"attributes": {"conv1": {"forward": 1}}},
        {"attributes": {"conv1": {"kernel_size": [3]}}},
        {"attributes": {"bn1": {"eps": float("inf")}}},
        {"attributes": {"conv1": 8}},
        {"attributes": {"nothing": {}}},
    ],
)
def test_a_form_that_does_not_fit(edit: dict[str, Any]) -> None:
    module = CifarResNet(depth=8)
    with pytest.raises(ValueError):
        surgery.apply(module, [{"kind": "pruned", "shapes": {"bn1.weight": [8]}} | edit])
    assert module.bn1.weight.shape == (16,)


def test_difference_and_reform() -> None:
    before, after = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6)), nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    edit = pruned.difference(before, after)
    assert edit["shapes"] == {"0.weight": [3, 4], "0.bias": [3], "1.weight": [3], "1.bias": [3]}
    assert edit["attributes"] == {"0": {"out_features": 3}, "1": {"normalized_shape": [3]}}
    before[0].bias.requires_grad_(False)
    surgery.apply(before, surgery.from_metadata({"form": surgery.to_text([edit])}))
    before.load_state_dict(after.state_dict())
    assert torch.equal(before(torch.ones(2, 4)), after(torch.ones(2, 4))) and not before[0].bias.requires_grad
    with pytest.raises(ValueError):
        pruned.difference(before, nn.Sequential(nn.Linear(4, 3)))
    with pytest.raises(ValueError):
        pruned.difference(before, nn.Sequential(nn.Linear(4, 3, bias=False), nn.LayerNorm(3)))


def test_shared_and_parametrised_tensors() -> None:
    tied = nn.ModuleDict({"a": nn.Linear(4, 6, bias=False), "b": nn.Linear(4, 6, bias=False)})
    tied["b"].weight = tied["a"].weight
    surgery.apply(tied, [{"kind": "pruned", "shapes": {"a.weight": [3, 4], "b.weight": [3, 4]}}])
    assert tied["a"].weight is tied["b"].weight and tied["a"].weight.shape == (3, 4)
    odd = nn.utils.parametrizations.weight_norm(nn.Linear(4, 6))
    assert pruned.difference(odd, copy.deepcopy(odd)) == {"kind": "pruned", "shapes": {}, "attributes": {}}


@pytest.mark.slow
def test_half_of_a_digits_network_and_a_teacher_recover_most_of_the_drop() -> None:
    torch.manual_seed(0)
    images, target = digits(1797), torch.tensor(load_digits().target)
    test = slice(1300, 1797)
    build = Network(
        CifarResNet(depth=8, channels=1), classes=10, channels=1, mean=(0.3,), std=(0.35,), head=("linear",)
    )

    def fit(network: Network, teacher: Network | None, epochs: int, rate: float) -> Network:
        optimiser = torch.optim.SGD(network.train().parameters(), rate, momentum=0.9, weight_decay=1e-4)
        for _ in range(epochs):
            for rows in torch.randperm(1300).split(64):
                said = network(images[rows]).pred
                loss = F.cross_entropy(said, target[rows])
                if teacher is not None:
                    with torch.no_grad():
                        taught = F.log_softmax(teacher(images[rows]).pred / 4, 1)
                    loss = loss + 16 * F.kl_div(
                        F.log_softmax(said / 4, 1), taught, reduction="batchmean", log_target=True
                    )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        return network.eval()

    def right(network: Network) -> float:
        with torch.no_grad():
            return (network(images[test]).pred.argmax(1) == target[test]).double().mean().item()

    whole = fit(build, None, 20, 0.05)
    half = Prune(macs=0.5).shrink(whole, view(images[:64]), 1)
    dropped = right(half)
    recovered = right(fit(half, whole, 15, 0.02))
    assert right(whole) > 0.9 and dropped < right(whole)
    assert recovered - dropped >= 0.9 * (right(whole) - dropped)

"""Where a network may be listened to, found without knowing its architecture."""

from __future__ import annotations

import pytest
import torch

from stillroom.matching.feature_info import feature_info
from stillroom.models import create_model

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 6, "num_heads": 3}


def look(name, size=64, **more):
    network = create_model(name, classes=5, channels=3, size=size, **more)
    return network, feature_info(network, torch.rand(2, 3, size, size))


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("resnet20", ["layer1", "layer2", "layer3"]),
        ("timm/resnet18", ["layer1", "layer2", "layer3", "layer4"]),
        ("torchvision/resnet18", ["layer1", "layer2", "layer3", "layer4"]),
        ("timm/mobilenetv2_100", ["blocks.0", "blocks.1", "blocks.2", "blocks.4", "bn2"]),
        ("timm/convnext_atto", ["stages.0", "stages.1", "stages.2", "norm_pre"]),
        ("timm/regnety_002", ["s1", "s2", "s3", "final_conv"]),
    ],
)
def test_a_stage_ends_where_the_resolution_changes(name, stages):
    network, found = look(name)
    assert [place.tap for place in found.stages] == stages
    assert [place.depth for place in found.stages] == [(i + 1) / len(stages) for i in range(len(stages))]
    taps = network(torch.rand(2, 3, 64, 64), tuple(stages)).taps
    assert [tuple(tap.shape[1:]) for tap in taps.values()] == [place.shape for place in found.stages]


def test_a_vit_is_cut_into_four_by_depth():
    _, found = look("timm/vit_tiny_patch16_224", 32, **VIT)
    assert len(found.blocks) == 6
    assert [place.tap for place in found.stages] == ["blocks.1", "blocks.2", "blocks.3", "blocks.5"]
    assert found.attention.tap == "blocks.5.attn.qkv" and found.attention.shape == (17, 72)
    assert found.vector.tap == "head:in" and found.vector.shape == (24,)


def test_a_swin_has_stages_and_its_maps_have_channels_first():
    network, found = look(
        "timm/swin_tiny_patch4_window7_224", 224, embed_dim=12, depths=(1, 1, 2, 1), num_heads=(1, 1, 2, 2)
    )
    assert [place.shape for place in found.stages] == [(12, 56, 56), (24, 28, 28), (48, 14, 14), (96, 7, 7)]
    tap = found.stages[1].tap
    assert network(torch.rand(1, 3, 224, 224), (tap,)).taps[tap].shape == (1, 24, 28, 28)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("resnet8", {}),
        ("torchvision/resnet18", {}),
        ("timm/resnet18", {"zero_init_last": False}),
    ],  # else blocks begin as x
)
def test_an_edge_is_what_the_last_activation_of_a_stage_reads(name, more):
    network, found = look(name, **more)
    assert all(place.tap.endswith(":in") for place in found.edges)
    network.eval()
    taps = tuple(place.tap for place in (*found.stages, *found.edges))
    said = list(network(torch.rand(2, 3, 64, 64), taps).taps.values())
    for after, before in zip(said[: len(found.stages)], said[len(found.stages) :], strict=True):
        assert before.min() < 0 and torch.allclose(after, before.relu())


def test_the_vector_is_what_the_classifier_reads():
    network, found = look("timm/resnet18")
    network.eval()
    said = network(torch.rand(2, 3, 64, 64), (found.vector.tap,))
    assert torch.allclose(network.module.fc(said.taps["fc:in"]), said.pred)


def test_nothing_is_left_behind():
    network = create_model("timm/resnet18", classes=5, channels=3, size=64).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    feature_info(network, torch.rand(2, 3, 64, 64))
    assert network.training and all(torch.equal(v, before[n]) for n, v in network.state_dict().items())
    assert not any(part._forward_hooks for part in network.modules())

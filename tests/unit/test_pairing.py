"""Which place of the student meets which of the teacher."""

from __future__ import annotations

import pytest
import torch

from stillroom.errors import StillroomError
from stillroom.matching.feature_info import FeaturePoint, feature_info
from stillroom.matching.layer_pairs import aligned, find_pairs, pairs_by_name
from stillroom.models import create_model

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 8, "num_heads": 3}


@pytest.fixture(scope="module")
def small():
    return look("resnet8", 32)


@pytest.fixture(scope="module")
def large():
    return look("timm/resnet18", 64)


@pytest.fixture(scope="module")
def vit():
    return look("timm/vit_tiny_patch16_224", 32, **VIT)


def look(name, size, **more):
    return feature_info(create_model(name, classes=5, channels=3, size=size, **more), torch.rand(2, 3, size, size))


def taps(pairs):
    return [(pair.student.tap, pair.teacher.tap) for pair in pairs]


def stages(*strides):
    return [
        FeaturePoint(f"s{s}", (8, 64 // s, 64 // s), float(s), (i + 1) / len(strides)) for i, s in enumerate(strides)
    ]


def test_equal_pyramids_meet_stage_by_stage():
    assert taps(aligned(stages(4, 8, 16), stages(4, 8, 16))) == [("s4", "s4"), ("s8", "s8"), ("s16", "s16")]


def test_a_shorter_pyramid_meets_the_end_of_the_longer():
    assert taps(aligned(stages(1, 2, 4), stages(4, 8, 16, 32))) == [("s1", "s8"), ("s2", "s16"), ("s4", "s32")]
    assert taps(aligned(stages(4, 8, 16, 32), stages(1, 2, 4))) == [("s8", "s1"), ("s16", "s2"), ("s32", "s4")]


def test_a_skipped_resolution_is_skipped_on_the_other_side():
    assert taps(aligned(stages(4, 16, 32), stages(4, 8, 16, 32))) == [("s4", "s4"), ("s16", "s16"), ("s32", "s32")]


def test_cnn_and_cnn(small, large):
    assert taps(find_pairs("stages", small, large)) == [
        ("layer1", "layer2"),
        ("layer2", "layer3"),
        ("layer3", "layer4"),
    ]
    assert taps(find_pairs("middle", small, large)) == [("layer2", "layer3")]
    assert taps(find_pairs("last", small, large)) == [("layer3", "layer4")]
    assert taps(find_pairs("vector", small, large)) == [("linear:in", "fc:in")]
    assert find_pairs("pred", small, large) == []


def test_cnn_and_vit_meet_by_depth(small, large, vit):
    assert taps(find_pairs("stages", large, vit)) == [(f"layer{i}", f"blocks.{2 * i - 1}") for i in (1, 2, 3, 4)]
    assert taps(find_pairs("stages", vit, large)) == [(f"blocks.{2 * i - 1}", f"layer{i}") for i in (1, 2, 3, 4)]
    assert taps(find_pairs("last", small, vit)) == [("layer3", "blocks.7")]


def test_vit_and_vit(vit):
    assert taps(find_pairs("blocks", vit, vit)) == [(f"blocks.{i}", f"blocks.{i}") for i in (0, 1, 7)]
    assert taps(find_pairs("attention", vit, vit)) == [("blocks.7.attn.qkv",) * 2]


def test_what_a_network_has_not_is_refused_with_its_side(small, vit):
    for kind in ("blocks", "attention"):
        with pytest.raises(StillroomError, match="student") as refused:
            find_pairs(kind, small, vit, method="vitkd")
        assert refused.value.code == "SR-M333" and "vitkd" in str(refused.value)


def test_one_side_named_finds_the_other(small, large):
    assert taps(find_pairs("stages", small, large, named=(("layer1", "layer3"), ()))) == [
        ("layer1", "layer2"),
        ("layer3", "layer4"),
    ]
    assert taps(find_pairs("middle", small, large, named=((), ("layer4",)))) == [("layer3", "layer4")]
    inner = find_pairs("middle", small, large, named=(("layer2.0.conv1",), ()))
    assert inner[0].teacher.tap == "layer3"


def test_both_sides_named_are_taken_as_they_are(small, large):
    assert taps(pairs_by_name(("layer1",), ("layer4",), small, large, method="fitnet")) == [("layer1", "layer4")]
    with pytest.raises(StillroomError, match="2 taps of the student and 1 of the teacher"):
        pairs_by_name(("layer1", "layer2"), ("layer4",), small, large, method="fitnet")

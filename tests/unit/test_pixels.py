"""Backbones, segmenters and embedders made of timm's and torchvision's models."""

from __future__ import annotations

import copy

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from stillroom.errors import StillroomError
from stillroom.matching.feature_info import feature_info
from stillroom.models import create_model, list_models, restore
from stillroom.models._backbone import Backbone, as_backbone
from stillroom.models._segmenter import LightDecoder

FAMILIES = ["test_resnet", "test_convnext", "test_efficientnet", "mobilenetv4_conv_small_050", "levit_128s", "test_vit"]


def made(name="timm/test_resnet", output_kind="pixels", classes=5, size=64, channels=3, **arguments):
    torch.manual_seed(0)
    return create_model(
        name, classes=classes, channels=channels, size=size, output_kind=output_kind, **arguments
    ).eval()


def seen(size=64, images=2, channels=3):
    return torch.rand(images, channels, size, size, generator=torch.Generator().manual_seed(0))


# A pyramid


@pytest.mark.parametrize("name", FAMILIES)
def test_a_backbone_says_what_timm_says_of_its_maps(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0).eval()
    whole, side = copy.deepcopy(model), model.pretrained_cfg["input_size"][-1]
    backbone = as_backbone(model, maps=3).eval()
    with torch.no_grad():
        maps = backbone(seen(side))
        there = whole.forward_intermediates(seen(side), norm=name == "test_vit", intermediates_only=True)
    assert isinstance(backbone, Backbone) and backbone is model and len(maps) == 3
    assert [tuple(one.shape[1:]) for one in maps] == [
        (c, -(-side // s), -(-side // s)) for c, s in zip(backbone.channels, backbone.strides, strict=True)
    ]
    assert all(any(one.shape == known.shape and torch.equal(one, known) for known in there) for one in maps)
    assert torch.equal(maps[-1], there[-1])


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_is_kept_that_the_maps_do_not_need(name):
    model = timm.create_model(name, num_classes=0)
    before, side = set(model.state_dict()), model.pretrained_cfg["input_size"][-1]
    backbone = as_backbone(model, maps=2)
    assert set(backbone.state_dict()) <= before
    torch.stack([one.square().mean() for one in backbone(seen(side))]).sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_maps_of_one_resolution_are_the_ends_of_quarters():
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=8, embed_dim=24, num_heads=2, img_size=32)
    assert as_backbone(copy.deepcopy(model), maps=4)._indices == (1, 3, 5, 7)
    two = as_backbone(copy.deepcopy(model), maps=2)
    assert two._indices == (5, 7) and two.strides == (16, 16) and two.channels == (24, 24)


def test_a_copy_is_a_backbone_of_its_own():
    one = as_backbone(timm.create_model("test_resnet", num_classes=0))
    two = copy.deepcopy(one).eval()
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.zero_()
        assert two(seen())[-1].abs().sum() > 0 and one.eval()(seen())[-1].abs().sum() == 0


def test_what_a_pyramid_refuses():
    with pytest.raises(ValueError, match="maps must be 1 to 5 for this model, got 6"):
        as_backbone(timm.create_model("test_resnet"), maps=6)
    with pytest.raises(StillroomError, match="Linear has no feature maps") as caught:
        as_backbone(nn.Linear(1, 1))
    assert caught.value.code == "SR-M345"


# A head


def test_the_light_head_is_its_formula():
    torch.manual_seed(0)
    head = LightDecoder((3, 4, 5), classes=6, width=7).eval()
    fine, middle, coarse = torch.randn(2, 3, 8, 8), torch.randn(2, 4, 4, 4), torch.randn(2, 5, 2, 2)
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    total = head.lateral[2](coarse)
    total = head.lateral[1](middle) + up(total)
    total = head.lateral[0](fine) + up(total)
    smooth = nn.functional.conv2d(total, head.smooth.weight, padding=1) / (1 + 1e-5) ** 0.5
    wanted = head.classifier(smooth.clamp_min(0))
    torch.testing.assert_close(head([fine, middle, coarse]), wanted)
    assert wanted.shape == (2, 6, 8, 8)


@pytest.mark.parametrize(
    ("decoder", "stride"), [("light", 8), ("lraspp", 8), ("fcn", 32), ("deeplab", 32)], ids=lambda one: str(one)
)
def test_every_decoder_answers_at_the_stride_of_its_finest_map(decoder, stride):
    network = made(decoder=decoder)
    with torch.no_grad():
        inner, pred = network.module(network.preprocess(seen())), network(seen()).pred
    assert inner.shape == (2, 5, 64 // stride, 64 // stride) and pred.shape == (2, 5, 64, 64)
    wanted = nn.functional.interpolate(inner, (64, 64), mode="bilinear", align_corners=False)
    assert torch.equal(pred, wanted) and pred.std() > 0
    classifiers = network.heads()
    assert [part.weight.shape[0] for part in classifiers] == [5] * len(classifiers)
    network.train()(seen()).pred.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_more_maps_make_a_finer_answer_and_a_stride_can_be_asked_for():
    for arguments, side in (({"maps": 4}, 16), ({"output_stride": 16, "maps": 2}, 8), ({"width": 8}, 8)):
        network = made(**arguments)
        assert network.module(network.preprocess(seen())).shape[-1] == side


def test_what_a_segmenter_refuses():
    for arguments, said in (
        ({"decoder": "unet"}, "decoder must be one of light, lraspp, fcn, deeplab"),
        ({"width": 8, "decoder": "fcn"}, "got 8 for fcn"),
        ({"maps": 9}, "maps must be 1 to 5"),
        ({"banana": 1}, "banana"),
    ):
        with pytest.raises(StillroomError, match=said) as caught:
            made(**arguments)
        assert caught.value.code == "SR-M304"
    with pytest.raises(StillroomError, match="decoder") as caught:
        made(output_kind="classes", decoder="light")
    assert caught.value.code == "SR-M304"


# Networks


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_vit", "timm/test_convnext"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_images_of_any_size(name, channels):
    network = made(name, channels=channels)
    images = torch.rand(2, channels, 50, 70)
    with torch.no_grad():
        assert network(images).pred.shape == (2, 5, 50, 70)
        torch.testing.assert_close(network(images).pred[1:], network(images[1:]).pred, rtol=1e-4, atol=1e-5)


def test_places_that_are_compared_lie_in_the_backbone():
    network = made()
    assert network.trunk == ("backbone",)
    found = feature_info(network, seen())
    assert found.stages[-1].tap.startswith("backbone.") and found.stages[-1].shape == (96, 2, 2)
    assert network(seen(), (found.stages[-1].tap,)).taps[found.stages[-1].tap].shape == (2, 96, 2, 2)


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/mobilenetv4_conv_small_050", "timm/test_vit"])
@pytest.mark.parametrize("output_kind", ["pixels", "vector"])
def test_a_classifiers_file_fills_the_backbone(name, output_kind, tmp_path):
    classifier = made(name, "classes", classes=7)
    path = tmp_path / "classifier.safetensors"
    save_file(classifier.weights(), path)
    fresh = made(name, output_kind, classes=None if output_kind == "vector" else 5)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.add_(1.0)
    network = restore(
        name,
        path,
        classes=None if output_kind == "vector" else 5,
        channels=3,
        size=64,
        head="replace",
        output_kind=output_kind,
    )
    there, given = network.weights(), classifier.weights()
    inside = [key for key in there if key.startswith("backbone.")]
    assert inside and all(torch.equal(there[key], given[key.removeprefix("backbone.")]) for key in inside)
    if output_kind == "vector":
        said = classifier.eval().module.forward_head(
            classifier.module.forward_features(classifier.preprocess(seen())), pre_logits=True
        )
        torch.testing.assert_close(network.eval()(seen()).pred, said)
        assert network.classes == said.shape[1] and network.head == ("vector",)


def test_a_segmenter_comes_back_exactly(tmp_path):
    student, path = made(decoder="lraspp"), tmp_path / "student.safetensors"
    save_file(student.weights(), path, metadata=student.metadata())
    again = restore(
        "timm/test_resnet", path, classes=None, channels=3, size=64, output_kind="pixels", decoder="lraspp"
    ).eval()
    assert again.classes == 5
    assert torch.equal(again(seen()).pred, student(seen()).pred)
    other = restore(
        "timm/test_resnet", path, classes=7, channels=3, size=64, output_kind="pixels", decoder="lraspp", head="replace"
    )
    changed = [k for k, v in other.weights().items() if v.shape != student.weights()[k].shape]
    assert sorted({key.rpartition(".")[0] for key in changed}) == sorted(student.head)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_a_vector_of_torchvision_is_what_its_last_layer_reads(name, tmp_path):
    network = made(f"torchvision/{name}", "vector", classes=None)
    classifier = made(f"torchvision/{name}", "classes")
    (last,), path = classifier.head, tmp_path / "classifier.safetensors"
    save_file(classifier.weights(), path)
    network = restore(
        f"torchvision/{name}", path, classes=None, channels=3, size=64, head="replace", output_kind="vector"
    ).eval()
    with torch.no_grad():
        said, read = network(seen()).pred, classifier(seen(), (f"{last}:in",)).taps[f"{last}:in"]
    wanted = read if read.ndim == 2 else read.relu().mean((2, 3))
    torch.testing.assert_close(said, wanted)
    assert network.classes == wanted.shape[1] and network.removed_heads == (last,)


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_segmenters_of_torchvision(name):
    network = made(f"torchvision/{name}")
    with torch.no_grad():
        pixels = network.preprocess(seen())
        assert torch.equal(network(seen()).pred, network.module(pixels)["out"])
    assert [part.weight.shape[0] for part in network.heads()] == [5] * len(network.head)
    assert not any(key.startswith("aux_classifier") for key in network.weights())
    assert made(f"torchvision/{name}", classes=None).classes == 21


def test_a_name_for_another_task_is_answered_with_what_there_is():
    for name, answers, instead in (
        ("fcn_resnet50", "classes", "torchvision/alexnet"),
        ("fcn_resnet50", "vector", "timm/NAME"),
        ("resnet18", "pixels", "torchvision/deeplabv3_mobilenet_v3_large"),
        ("resnet18", "boxes", "torchvision/fcos_resnet50_fpn"),
    ):
        with pytest.raises(StillroomError, match=instead) as caught:
            made(f"torchvision/{name}", answers)
        assert caught.value.code == "SR-M346" and "fasterrcnn" not in str(caught.value)
    assert "torchvision/fcos_resnet50_fpn" in list_models("fcos") and list_models("fasterrcnn") == []
    assert "torchvision/lraspp_mobilenet_v3_large" in list_models("lraspp")


@pytest.mark.parametrize(
    "arguments", [{}, pytest.param({"decoder": "lraspp"}, marks=pytest.mark.slow)], ids=["light", "lraspp"]
)
def test_the_exported_program_answers_images_of_other_sizes(arguments, tmp_path):
    network = made(**arguments)
    network.size, network.always_resize, path = 64, True, str(tmp_path / "model.onnx")

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, images):
            return self.network(images).pred

    batch, height, width = (torch.export.Dim(one, min=1 if one == "b" else 16, max=512) for one in "bhw")
    torch.onnx.export(
        Plain().eval(), (seen(72),), path, dynamo=True, dynamic_shapes=({0: batch, 2: height, 3: width},), verbose=False
    )
    session = onnxruntime.InferenceSession(path)
    for size in ((64, 64), (48, 90), (130, 100)):
        images = torch.rand(3, 3, *size)
        (said,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(said, network(images).pred.numpy(), atol=2e-3)
        assert said.shape == (3, 5, *size)


def test_trained_weights_leave_a_classifier_of_another_size_new():
    from stillroom.models.torchvision import _load_matching

    module, trained = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)), nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 9))
    before = module[1].weight.clone()
    _load_matching(module, trained.state_dict())
    assert torch.equal(module[0].weight, trained[0].weight) and torch.equal(module[1].weight, before)

"""Detectors built on backbones: their places, how they begin, and who is refused."""

from __future__ import annotations

import pytest
import torch
from kit.stages import Stages
from kit.targets import known
from torch import nn

from stillroom.errors import StillroomError
from stillroom.models._detector import Neck, detector
from stillroom.models._family import NetworkSpec
from stillroom.models._torchvision_detector import adapt_detector
from stillroom.ops.detection_loss import detection_loss

DECODERS = ("fcos", "retinanet", "ssdlite")


def made(decoder, strides=(8, 16, 32), classes=3, **more):
    torch.manual_seed(0)
    return detector(
        Stages(strides), decoder, NetworkSpec(classes=classes, channels=3, size=64, output_kind="boxes"), **more
    )


@pytest.mark.parametrize(("decoder", "each"), [("fcos", 1), ("retinanet", 9), ("ssdlite", 6)])
def test_places(decoder, each):
    """64 pixels: 8 x 8, 4 x 4 and 2 x 2 positions, and one of the map that is added."""
    pred = made(decoder).eval()(torch.rand(2, 3, 64, 64))
    assert pred.shape == (2, each * (64 + 16 + 4 + 1), 4 + 3)


@pytest.mark.parametrize("decoder", DECODERS)
def test_an_image_that_is_no_multiple_of_the_strides(decoder):
    pred = made(decoder).eval()(torch.rand(1, 3, 70, 50))
    x, y = (pred[0, :, 0] + pred[0, :, 2]) / 2, (pred[0, :, 1] + pred[0, :, 3]) / 2
    assert x.quantile(0.9) > 0.6 and y.quantile(0.9) > 0.6 and x.median() < 0.6 and pred.isfinite().all()


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("classes", [1, 3, 90])
def test_a_new_one_is_calm(decoder, classes):
    """Every score near 0.01, and boxes of a size."""
    pred = made(decoder, classes=classes).eval()(torch.rand(2, 3, 64, 64))
    scores, sides = pred[..., 4:].sigmoid(), pred[..., 2:4] - pred[..., :2]
    assert 0.003 < scores.mean() < 0.03 and scores.max() < 0.2
    assert (sides > 0).all() and sides.median() > 0.05
    terms = detection_loss(pred, known([(0.2, 0.2, 0.5, 0.6, 0)], []))
    assert terms["score"] < 2 and terms["box"] < 4


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_parameter_learns(decoder):
    network = made(decoder)
    pred = network.train()(torch.rand(2, 3, 128, 128))
    target = known([(0.2, 0.2, 0.5, 0.6, 0), (0.0, 0.0, 0.9, 0.9, 1)], [(0.5, 0.5, 0.6, 0.6, 2)])
    sum(detection_loss(pred, target).values()).backward()
    still = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert not still


@pytest.mark.parametrize("decoder", DECODERS)
def test_half_precision_moves_no_place(decoder):
    """Zeros in the head: the boxes are the priors, exactly, whatever the network computes in."""
    network, images = made(decoder).eval(), torch.rand(1, 3, 200, 200)
    for value in network.decoder.regression_head.parameters():
        nn.init.zeros_(value)
    full = network(images)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(images)
    assert half.dtype == torch.float32 and torch.equal(half[..., :4], full[..., :4])


@pytest.mark.parametrize("decoder", DECODERS)
def test_names_of_the_parts_and_of_the_classifiers(decoder):
    network = made(decoder, classes=5)
    assert [name for name, _ in network.named_children()] == ["backbone", "neck", "decoder"]
    for name in network.classifiers:
        assert network.get_submodule(name).out_channels % (5 + (decoder == "ssdlite")) == 0
    assert len(network.classifiers) == (4 if decoder == "ssdlite" else 1)


def test_maps_of_one_resolution_are_taken_apart():
    neck = Neck(Stages((16, 16, 16)), 32, 1)
    assert neck.strides == (8, 16, 32, 64)
    maps = neck.eval()(Stages((16, 16, 16))(torch.rand(1, 3, 64, 64)))
    assert [tuple(one.shape) for one in maps] == [(1, 32, 8, 8), (1, 32, 4, 4), (1, 32, 2, 2), (1, 32, 1, 1)]


@pytest.mark.parametrize(("argument", "value"), [("width", 12), ("convs", 5), ("coarser", -1), ("decoder", "yolo")])
def test_arguments_out_of_range_are_named(argument, value):
    with pytest.raises(ValueError, match=f"^{argument} "):
        made(**{"decoder": "fcos"} | {argument: value})


@pytest.mark.parametrize("decoder", ["fcos", "retinanet"])
def test_more_convolutions_are_more(decoder):
    def count(network):
        return sum(part.kernel_size == (3, 3) for part in network.decoder.modules() if isinstance(part, nn.Conv2d))

    assert count(made(decoder, convs=4)) - count(made(decoder, convs=0)) == 8


def test_a_detector_of_two_stages_is_refused():
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    with pytest.raises(StillroomError) as refusal:
        adapt_detector(fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None))
    assert refusal.value.code == "SR-M340" and "FasterRCNN" in str(refusal.value)


def test_a_wrapped_model_keeps_its_names():
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
    before = list(model.state_dict())
    inside = adapt_detector(model)
    assert list(inside.state_dict()) == before
    assert [inside.get_submodule(name).out_channels for name in inside.classifiers] == [6 * 4] * 6
    assert inside.eval()(torch.rand(1, 3, 320, 320)).shape == (1, 3234, 4 + 3)

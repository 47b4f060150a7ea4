"""The task of boxes: what an answer is, how right it is, that tiny detectors learn, and that files say the same."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import torchvision.ops as ops
from kit.boxes import assert_same_boxes
from kit.scenes import CLASSES, scenes
from kit.stages import Stages
from kit.targets import drawn_pred, known
from torch.export import Dim

from stillroom.export._wrapper import ExportWrapper
from stillroom.export.onnx import ONNX
from stillroom.models import create_model
from stillroom.models._detector import detector
from stillroom.models._family import NetworkSpec
from stillroom.models.network import Network
from stillroom.tasks.detection import Detection, best_boxes
from stillroom.tasks.predictor import Predictor
from stillroom.types import Batch, Output

BOUNDS = {"nms_iou": 0.6, "max_detections": 100, "score_threshold": 0.01, "pre_nms_topk": 300}


def batch(count=8, side=64):
    """Scenes whose digits are all 9 pixels wide and more: what is narrower lies between the places that answer."""
    made = scenes(count, side, seed=2)
    pixels = np.stack([scene.image for scene in made])
    rows = [[(*(b / side), int(k)) for b, k in zip(scene.boxes, scene.labels, strict=True)] for scene in made]
    images = torch.from_numpy(pixels).float()[:, None].expand(-1, 3, -1, -1) / 255
    return Batch(images=images.contiguous(), target=known(*rows), keys=torch.arange(count))


@cache
@torch.enable_grad()
def learned():
    """A detector trained on eight scenes, a quarter of them empty, until it finds all boxes.

    In the end its norms get the statistics of these very scenes. Those that it gathered on the way are of weights that
    it no longer has, and on them the answers depended on the seed and on the processor's rounding.
    """
    torch.manual_seed(0)
    seen, task = batch(), Detection()
    network = create_model("timm/test_resnet", classes=3, channels=3, size=64, output_kind="boxes", decoder="fcos")
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for _ in range(60):
        optimiser.zero_grad()
        sum(task.loss(network(seen.images), seen).values()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        network(seen.images)
    return network.eval()


def naive(pred, height, width, limit, most, least):
    """One image's answer: every place's every class, torchvision's suppression, the best."""
    boxes, scores = pred[:, :4].clamp(0, 1), pred[:, 4:].sigmoid()
    classes = scores.shape[1]
    every = boxes[:, None].expand(-1, classes, -1).reshape(-1, 4)
    labels = torch.arange(classes).expand(len(boxes), -1).flatten()
    first = scores.flatten().argsort(descending=True, stable=True)[:300]
    kept = first[ops.batched_nms(every[first], scores.flatten()[first], labels[first], limit)]
    kept = kept[scores.flatten()[kept] >= least][:most]
    pixels = every[kept] * torch.tensor([width, height, width, height])
    return torch.cat((pixels, scores.flatten()[kept, None], labels[kept, None]), 1)


@pytest.mark.parametrize("limit", [0.3, 0.6, 1.0])
def test_an_answer_against_torchvisions_suppression(limit):
    pred = drawn_pred(3, 150, 4)
    found = best_boxes(pred, 50, 80, **BOUNDS | {"nms_iou": limit, "max_detections": 40, "score_threshold": 0.2})
    assert found.shape == (3, 40, 6)
    for image in range(3):
        expected = naive(pred[image], 50, 80, limit, 40, 0.2)
        count = len(expected)
        assert count > 5 and torch.allclose(found[image, :count], expected, atol=1e-4)
        assert (found[image, count:] == torch.tensor([0.0, 0, 0, 0, 0, -1])).all()


def test_a_place_may_be_of_two_classes_and_boxes_end_at_the_border():
    pred = torch.tensor([[[-0.5, 0.2, 0.5, 1.4, 2.0, 1.0, -9.0]]])
    found = best_boxes(pred, 100, 200, **BOUNDS | {"max_detections": 5})
    assert found.shape == (1, 1, 6)  # as many as there are places
    assert found[0, 0].tolist() == pytest.approx([0, 20, 100, 100, torch.tensor(2.0).sigmoid().item(), 0])
    both = best_boxes(pred.expand(1, 2, -1), 100, 200, **BOUNDS)
    assert both[0, :, 5].tolist() == [0, 1]


def test_numbers_that_are_none_are_no_boxes():
    pred = drawn_pred(1, 10, 2)
    pred[0, :, 4:] = torch.nan
    assert (best_boxes(pred, 10, 10, **BOUNDS)[..., 5] == -1).all()


def test_how_right_an_image_is():
    task = Detection()
    target = known([(0.1, 0.1, 0.5, 0.5, 0)], [], [(0.1, 0.1, 0.5, 0.5, 0)], [(0.1, 0.1, 0.5, 0.5, 0)], unknown=[3])
    seen = Batch(images=torch.zeros(4, 3, 100, 200), target=target, keys=torch.arange(4))
    rows = torch.tensor([[20.0, 10, 100, 50, 1.0, 0], [0, 0, 9, 9, 0.05, 1]])
    wrong = torch.tensor([[20.0, 10, 100, 50, 1.0, 1], [0, 0, 9, 9, 0.05, 1]])
    none = torch.tensor([[0.0, 0, 9, 9, 0.05, 1], [0, 0, 0, 0, 0, -1]])
    answer = Output(pred=torch.stack((rows, none, wrong, wrong)))
    assert task.score_per_image(answer, seen).tolist() == pytest.approx([1, 1, 0, 1])
    assert task.agreement_per_image(answer, answer).tolist() == [1, 1, 1, 1]
    assert task.agreement_per_image(answer, Output(pred=answer.pred.flip(0)))[0] == 0


def test_what_is_drawn():
    target = known([(0.1, 0.2, 0.5, 0.6, 2), (0.0, 0.0, 0.5, 0.5, 1)], [], crowd=[(0, 1)])
    seen = Batch(images=torch.zeros(2, 3, 100, 200), target=target, keys=torch.arange(2))
    truth = Detection().drawable_target(seen, 0)["boxes"]
    assert truth[0] == pytest.approx([0.1, 0.2, 0.5, 0.6, 2, 1]) and len(truth) == 2
    assert Detection().drawable_target(seen, 1) == {"boxes": []}
    answer = Output(pred=torch.tensor([[[20.0, 20, 100, 60, 0.5, 2], [0, 0, 0, 0, 0, -1]]]))
    assert Detection().drawable(answer, 0) == {"boxes": [[20, 20, 100, 60, 2, 0.5]]}


@pytest.mark.parametrize(
    ("argument", "value"),
    [("assign", "few"), ("nms_iou", 1.5), ("score_threshold", -0.1), ("max_detections", 0), ("pre_nms_topk", 0)],
)
def test_arguments_out_of_range_are_named(argument, value):
    with pytest.raises(ValueError, match=f"^{argument} "):
        Detection(**{argument: value})


def test_a_tiny_detector_learns_eight_scenes():
    seen, task = batch(), Detection()
    with torch.no_grad():
        answer = task.postprocess(learned()(seen.images), seen.images)
    (metric,) = task.metrics(CLASSES)
    metric.update(answer, seen)
    figures = metric.compute()
    assert figures["map50"].value > 0.95 and figures["map"].value > 0.6
    assert task.score_per_image(answer, seen).min() > 0.8  # empty ones too


def test_a_batch_without_a_box_trains_and_is_answered():
    empty = batch(4).map(lambda value: value[3:4].expand(2, *value.shape[1:]))
    assert not (empty.target["labels"] >= 0).any()
    network, task = learned(), Detection()
    said = network(empty.images)
    loss = sum(task.loss(said, empty).values())
    loss.backward()
    slopes = [value.grad for value in network.parameters() if value.grad is not None]
    assert loss.isfinite() and all(slope.isfinite().all() for slope in slopes)
    network.zero_grad()
    (metric,) = task.metrics(CLASSES)
    metric.update(task.postprocess(said, empty.images), empty)
    assert metric.compute() == {} and metric.value() == 0


def test_rows_may_swap_ranks_where_scores_tie_and_nothing_else():
    """The comparison that `test_tasks` holds files to."""
    rows = torch.tensor([[0.0, 0, 9, 9, 0.5, 1], [20, 20, 30, 30, 0.2 + 1e-6, 0], [40, 0, 50, 9, 0.2, 1]])
    assert_same_boxes(rows[None], rows[None, [0, 2, 1]], pixels=0.1)
    wrong = [rows[[1, 0, 2]], rows[[0, 1, 1]], rows + torch.tensor([0.2, 0, 0, 0, 0, 0]), rows * 1.001]
    for other in [*wrong, rows.index_fill(1, torch.tensor(5), 1)]:
        with pytest.raises(AssertionError):
            assert_same_boxes(other[None], rows[None], pixels=0.1)


def exported(network, path):
    torch.onnx.export(
        ExportWrapper(Predictor(network, Detection()), any_size=True),
        (torch.rand(2, 3, 77, 91),),
        path,
        dynamo=True,
        verbose=False,
        external_data=False,
        dynamic_shapes=({0: Dim("B"), 2: Dim("H"), 3: Dim("W")},),
    )
    return ONNX().open(path)


def compared(network, file, seen, height, width):
    """What network and file say to the same images, brought to another size."""
    images = torch.nn.functional.interpolate(seen.images, (height, width), mode="bilinear", antialias=True)
    network.always_resize = True
    with torch.no_grad():
        expected = Detection().postprocess(network(images), images).pred
    network.always_resize = False
    return expected, file(images).pred


SIZES = ((64, 64), (100, 160), (33, 48), (200, 90))


@pytest.mark.filterwarnings("ignore")  # of the exporter
@pytest.mark.slow
def test_the_file_gives_boxes_in_the_pixels_of_images_of_any_size(tmp_path):
    network, seen = learned(), batch()
    network.size = 64
    file = exported(network, tmp_path / "detector.onnx")
    for height, width in SIZES:
        expected, said = compared(network, file, seen, height, width)
        sure = expected[..., 4] > 0.1
        assert said.shape == expected.shape and sure.sum() >= 12
        assert torch.allclose(said[sure], expected[sure], atol=0.05)
        truth = seen.target["boxes"][0] * torch.tensor([width, height, width, height])
        if min(height, width) >= 64:  # the digits are where they are in this image, not in one of 64 pixels
            assert (ops.box_iou(truth, said[0, :6, :4]).max(1).values > 0.6).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("decoder", ["retinanet", "ssdlite"])
def test_files_of_the_other_heads(decoder, tmp_path):
    torch.manual_seed(0)
    facts = NetworkSpec(classes=3, channels=3, size=64, output_kind="boxes")
    module = detector(Stages((16, 32)), decoder, facts, width=16, coarser=0)
    for part in module.modules():  # scores far apart, so that their order is certain
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
    network = Network(module, classes=3, size=64, output_kind="boxes").eval()
    file = exported(network, tmp_path / "detector.onnx")
    for height, width in SIZES:
        expected, said = compared(network, file, batch(), height, width)
        assert torch.allclose(said[..., 4], expected[..., 4], atol=1e-3)
        close = (said - expected).abs().amax(-1) < 0.2
        assert close.float().mean() > 0.97 and expected[..., 4].std() > 0.02

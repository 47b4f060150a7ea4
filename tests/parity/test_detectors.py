"""torchvision's detectors in one form against torchvision's own postprocessing, with everything let through."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stillroom.models._box_decoding import decode_predictions
from stillroom.models._torchvision_detector import adapt_detector

SIDE, CLASSES = 128, 3


def body(channels=32):
    """Three maps of strides 8, 16, 32, quickly."""

    class Body(nn.Module):
        out_channels = channels

        def __init__(self):
            super().__init__()
            self.stages = nn.ModuleList(nn.Conv2d(3 if s == 8 else channels, channels, 3, s, 1) for s in (8, 2, 2))

        def forward(self, x):
            found = {}
            for level, stage in enumerate(self.stages):
                x = stage(x).tanh()
                found[str(level)] = x
            return found

    return Body()


def fcos():
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    generator = AnchorGenerator(((8,), (16,), (32,)), ((1.0,),) * 3)
    return FCOS(body(), CLASSES, anchor_generator=generator)


def retinanet():
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    generator = AnchorGenerator(((32, 40, 50), (64, 80, 101), (128, 161, 203)), ((0.5, 1.0, 2.0),) * 3)
    return RetinaNet(body(), CLASSES, anchor_generator=generator)


def ssd():
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSD, SSDHead

    generator = DefaultBoxGenerator([[2, 3]] * 3)
    head = SSDHead([32] * 3, generator.num_anchors_per_location(), CLASSES + 1)
    return SSD(body(), generator, (SIDE, SIDE), CLASSES + 1, head=head)


def scattered(model):
    """The model with heads that say all sorts of things."""
    torch.manual_seed(3)
    for part in model.head.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, std=0.08)
            nn.init.normal_(part.bias, std=0.5)
    return model.eval()


def everything(model):
    """torchvision's own answers with no threshold, no suppression and no limit; images are not touched before."""
    model.score_thresh, model.nms_thresh = -1.0, 1.0
    model.topk_candidates = model.detections_per_img = 10**6
    model.transform.image_mean, model.transform.image_std = [0.0] * 3, [1.0] * 3
    model.transform.min_size, model.transform.max_size = (SIDE,), SIDE
    return model


@pytest.mark.parametrize("make", [fcos, retinanet, ssd])
def test_places_are_torchvisions_detections(make):
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    model = everything(scattered(make()))
    with torch.no_grad():
        theirs = model(list(images))
        ours = adapt_detector(model)(images)
    first = 1 if make is ssd else 0  # what label the first class has
    for image in range(2):
        shares, scores = ours[image, :, :4], ours[image, :, 4:].sigmoid()
        pixels = shares.clamp(0, 1) * SIDE
        places = pixels[:, None].expand(-1, CLASSES, -1).reshape(-1, 4)
        labels = torch.arange(CLASSES).expand(len(pixels), -1).flatten() + first
        mine = torch.cat((labels[:, None], scores.reshape(-1, 1), places), 1).double()
        own = torch.cat((theirs[image]["labels"][:, None], theirs[image]["scores"][:, None], theirs[image]["boxes"]), 1)
        assert own[:, 1].std() > 0.02 and len(own) == len(mine)
        for label in labels.unique():
            a, b = mine[mine[:, 0] == label], own[own[:, 0] == label].double()
            gap = torch.cdist(a[:, 1:], b[:, 1:] if len(b) else a[:0, 1:])
            assert len(a) == len(b) and gap.min(1).values.max() < 1e-4 * SIDE and gap.min(0).values.max() < 1e-4 * SIDE
            assert torch.allclose(a[:, 1].sort().values, b[:, 1].sort().values, atol=1e-5)


def test_scores_are_the_formulas():
    logits, centre = torch.randn(2, 5, 3) * 4, torch.randn(2, 5, 1) * 4
    boxes = torch.rand(5, 4)
    codes = torch.rand(2, 5, 4)
    said = {"cls_logits": logits, "bbox_regression": codes, "bbox_ctrness": centre}
    found = decode_predictions(said, boxes, (1, 1), None, background=False)[..., 4:]
    assert torch.allclose(found.sigmoid(), (logits.sigmoid() * centre.sigmoid()).sqrt(), atol=1e-6)

    class Coder:
        weights = (1.0, 1.0, 1.0, 1.0)

    said = {"cls_logits": logits, "bbox_regression": codes}
    found = decode_predictions(said, boxes, (1, 1), Coder, background=True)[..., 4:]
    assert torch.allclose(found.sigmoid(), logits.softmax(-1)[..., 1:], atol=1e-6)


def test_certainty_keeps_numbers_and_gradients_finite():
    for value in (-200.0, 60.0, 200.0):
        logits = torch.full((1, 1, 2), value).requires_grad_()
        said = {
            "cls_logits": logits,
            "bbox_regression": torch.zeros(1, 1, 4),
            "bbox_ctrness": torch.full((1, 1, 1), 60.0),
        }
        found = decode_predictions(said, torch.tensor([[0.0, 0, 1, 1]]), (1, 1), None, background=False)
        found.sum().backward()
        assert found.isfinite().all() and logits.grad.isfinite().all()
        assert value < 0 or found[..., 4:].sigmoid().min() > 0.9999

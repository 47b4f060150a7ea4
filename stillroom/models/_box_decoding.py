"""What detectors' heads say, brought to one form: boxes in shares of the image, and a logit a class.

Every function is differentiable, computes in float32, and gives what torchvision's own postprocessing has before it
drops and suppresses boxes. Letters: A places, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.ops.boxes import to_centres

MOST = math.log(1000 / 16)
"""Greatest logarithm of how much larger than its prior a box is: torchvision's bound, which keeps exp finite."""

TINY = 1e-7
"""Least probability of "not this class": nearer to 1 float32 has hardly another number."""


def anchor_boxes(generator: Any, images: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """Boxes that the heads' numbers are relative to: [A, 4], left, top, right, bottom in pixels of the input.

    Sizes are read off the tensors as numbers, so that in an exported program they are constants.

    Args:
        generator: torchvision's AnchorGenerator or DefaultBoxGenerator.
        images: [B, C, H, W].
        maps: what the head reads, each [B, C, h, w].
    """
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList

    height, width = images.shape[-2:]
    grids = [list(one.shape[-2:]) for one in maps]
    if isinstance(generator, AnchorGenerator):  # its forward keeps tensors in itself, which a traced program may not
        boxes = torch.cat(generator.grid_anchors(grids, [[height // h, width // w] for h, w in grids]))
    else:
        corners = [one[:1, :1].float() for one in maps]  # it computes in the maps' own precision, which may be half
        boxes = generator(ImageList(images, [(height, width)]), corners)[0]
    return boxes.to(images.device, torch.float32)


def decode_predictions(
    said: Mapping[str, Tensor], boxes: Tensor, size: Sequence[int], coder: Any, *, background: bool
) -> Tensor:
    """A head's tensors -> [B, A, 4 + K], see `types.OutputKind`.

    Args:
        said: `cls_logits` [B, A, K], or [B, A, 1 + K] with the background first; `bbox_regression` [B, A, 4]; of FCOS
            also `bbox_ctrness` [B, A, 1].
        boxes: `priors`.
        size: height and width of the input.
        coder: torchvision's, which says how numbers become boxes.
        background: whether the classes and the background share a softmax.
    """
    logits, codes = said["cls_logits"].float(), said["bbox_regression"].float()
    if "bbox_ctrness" in said:
        sides, logits = _linear(codes, boxes), _joint(logits, said["bbox_ctrness"].float())
    else:
        sides = _scaled(codes, boxes, coder.weights)
    height, width = size
    shares = sides / sides.new_tensor([width, height, width, height])
    return torch.cat((shares, _apart(logits) if background else logits), -1)


def _linear(codes: Tensor, boxes: Tensor) -> Tensor:
    """FCOS: distances from a prior's centre to the four sides, in the prior's sides. Tian et al. 2019, 1904.01355."""
    x, y, w, h = to_centres(boxes).unbind(-1)
    left, top, right, bottom = codes.unbind(-1)
    return torch.stack((x - left * w, y - top * h, x + right * w, y + bottom * h), -1)


def _scaled(codes: Tensor, boxes: Tensor, weights: Sequence[float]) -> Tensor:
    """RetinaNet and SSD: the centre's shift in the prior's sides, and logarithms of how much larger each side is."""
    x, y, w, h = to_centres(boxes).unbind(-1)
    dx, dy, dw, dh = (code / weight for code, weight in zip(codes.unbind(-1), weights, strict=True))
    x, y = x + dx * w, y + dy * h
    w, h = w * dw.clamp(max=MOST).exp() / 2, h * dh.clamp(max=MOST).exp() / 2
    return torch.stack((x - w, y - h, x + w, y + h), -1)


def _joint(logits: Tensor, centre: Tensor) -> Tensor:
    """FCOS: the logit whose sigmoid is sqrt(sigmoid(class) sigmoid(centre-ness))."""
    return _logit((F.logsigmoid(logits) + F.logsigmoid(centre)) / 2)


def _apart(logits: Tensor) -> Tensor:
    """SSD: [.., 1 + K] of one softmax, background first -> [.., K], logits whose sigmoids are its probabilities."""
    return _logit(logits.log_softmax(-1)[..., 1:])


def _logit(log: Tensor) -> Tensor:
    """From log p to log p - log(1 - p); its gradient stays 1 and more where p is 1 in float32."""
    return log - (-torch.expm1(log)).clamp(min=TINY).log()

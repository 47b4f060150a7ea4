"""Decoding of torchvision's detection heads into [B, A, 4 + K]: boxes relative to the image, and one logit per class.

All functions are differentiable and compute in float32. Results equal those of torchvision's own postprocessing before
its score threshold and non-maximum suppression.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.ops.boxes import to_centres

MAX_LOG_SCALE = math.log(1000 / 16)
"""Largest logarithm of the size of a box relative to its anchor: torchvision's bound, which keeps exp finite."""

MIN_COMPLEMENT = 1e-7
"""Smallest 1 - p of a probability p, near the resolution of float32 at 1."""


def anchor_boxes(generator: Any, images: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """The anchors of all maps: [A, 4], left, top, right, bottom in input pixels.

    Sizes are read from the shapes as Python numbers, so that they are constants in an exported program.

    Args:
        generator: torchvision's AnchorGenerator or DefaultBoxGenerator.
        images: [B, C, H, W].
        maps: the head's input, each [B, C, h, w].
    """
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList

    height, width = images.shape[-2:]
    grids = [list(one.shape[-2:]) for one in maps]
    if isinstance(generator, AnchorGenerator):  # not its forward, which caches tensors and can't be traced
        boxes = torch.cat(generator.grid_anchors(grids, [[height // h, width // w] for h, w in grids]))
    else:
        float_maps = [one[:1, :1].float() for one in maps]  # it computes in the maps' precision, which may be half
        boxes = generator(ImageList(images, [(height, width)]), float_maps)[0]
    return boxes.to(images.device, torch.float32)


def decode_predictions(
    outputs: Mapping[str, Tensor], anchors: Tensor, size: Sequence[int], coder: Any, *, background: bool
) -> Tensor:
    """The outputs of a head -> [B, A, 4 + K], see `types.OutputKind`.

    Args:
        outputs: `cls_logits` [B, A, K], or [B, A, 1 + K] with the background first; `bbox_regression` [B, A, 4]; for
            FCOS also `bbox_ctrness` [B, A, 1].
        anchors: from `anchor_boxes`.
        size: height and width of the input.
        coder: torchvision's box coder, for its weights; None for FCOS.
        background: whether the classes and the background share a softmax.
    """
    logits, codes = outputs["cls_logits"].float(), outputs["bbox_regression"].float()
    if "bbox_ctrness" in outputs:
        boxes, logits = _decode_distances(codes, anchors), _with_centreness(logits, outputs["bbox_ctrness"].float())
    else:
        boxes = _decode_deltas(codes, anchors, coder.weights)
    height, width = size
    relative = boxes / boxes.new_tensor([width, height, width, height])
    return torch.cat((relative, _without_background(logits) if background else logits), -1)


def _decode_distances(codes: Tensor, anchors: Tensor) -> Tensor:
    """FCOS: distances from the anchor's centre to the four sides, in units of the anchor's size.

    Tian et al. 2019, https://arxiv.org/abs/1904.01355.
    """
    x, y, w, h = to_centres(anchors).unbind(-1)
    left, top, right, bottom = codes.unbind(-1)
    return torch.stack((x - left * w, y - top * h, x + right * w, y + bottom * h), -1)


def _decode_deltas(codes: Tensor, anchors: Tensor, weights: Sequence[float]) -> Tensor:
    """RetinaNet and SSD: offset of the centre in units of the anchor's size, and logarithm of the relative size."""
    x, y, w, h = to_centres(anchors).unbind(-1)
    dx, dy, dw, dh = (code / weight for code, weight in zip(codes.unbind(-1), weights, strict=True))
    x, y = x + dx * w, y + dy * h
    w, h = w * dw.clamp(max=MAX_LOG_SCALE).exp() / 2, h * dh.clamp(max=MAX_LOG_SCALE).exp() / 2
    return torch.stack((x - w, y - h, x + w, y + h), -1)


def _with_centreness(logits: Tensor, centreness: Tensor) -> Tensor:
    """FCOS: the logit whose sigmoid is sqrt(sigmoid(class) sigmoid(centre-ness))."""
    return _logit((F.logsigmoid(logits) + F.logsigmoid(centreness)) / 2)


def _without_background(logits: Tensor) -> Tensor:
    """SSD: softmax logits [.., 1 + K], background first -> [.., K], logits whose sigmoids are the probabilities."""
    return _logit(logits.log_softmax(-1)[..., 1:])


def _logit(log_p: Tensor) -> Tensor:
    """Log p - log(1 - p) from log p; the gradient stays at least 1 where p is 1 in float32."""
    return log_p - (-torch.expm1(log_p)).clamp(min=MIN_COMPLEMENT).log()

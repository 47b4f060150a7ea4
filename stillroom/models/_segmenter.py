"""Segmentation networks: decoders that turn a backbone's feature maps into a logit per class and position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.models._backbone import Backbone, as_backbone

Decoder = Literal["light", "lraspp", "fcn", "deeplab"]

MAPS: dict[str, int] = {"light": 3, "lraspp": 3, "fcn": 1, "deeplab": 1}
"""Default number of backbone maps for each decoder."""


class Segmenter(nn.Module):
    """A backbone and a decoder.

    Args:
        backbone: [B, C, H, W] -> feature maps.
        decoder: those maps -> logits [B, K, h, w] at the stride of the finest map that it uses.
        classifiers: names, inside the decoder, of the convolutions that compute the class logits.

    Attributes:
        classifiers: the same names, relative to this module.
    """

    def __init__(self, backbone: Backbone, decoder: nn.Module, classifiers: Sequence[str]):
        super().__init__()
        self.backbone, self.decoder = backbone, decoder
        self.classifiers = tuple(f"decoder.{name}" for name in classifiers)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] normalised -> logits [B, K, h, w]."""
        return self.decoder(self.backbone(images))


class LightDecoder(nn.Module):
    """A light decoder: a top-down sum of the maps m_1 .. m_n, fine to coarse, with one prediction at the finest level.

        p_n = A_n m_n,    p_i = A_i m_i + up(p_(i+1)),    logits = W relu(norm(C p_1)) + b

    A_i are 1x1 convolutions, C is a 3x3 convolution, `up` is bilinear, `norm` a batch norm. The top-down sum is that of
    feature pyramids (Lin et al. 2017, https://arxiv.org/abs/1612.03144, section 3), which predict at every level.

    Args:
        channels: of each map.
        classes: K.
        width: inner channels, at least 1.
    """

    def __init__(self, channels: Sequence[int], classes: int, width: int = 64):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm, self.relu = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps, fine to coarse -> logits [B, K, h, w] at the resolution of the first map."""
        levels = [lateral(one) for lateral, one in zip(self.lateral, maps, strict=True)]
        total = levels.pop()
        while levels:
            finer = levels.pop()
            total = finer + F.interpolate(total, finer.shape[-2:], mode="bilinear", align_corners=False)
        return self.classifier(self.relu(self.norm(self.smooth(total))))


class TorchvisionDecoder(nn.Module):
    """A segmentation head of torchvision's.

    Args:
        head: takes a map, or with `ends` a dictionary of the finest ("low") and the coarsest ("high").
        ends: whether the head uses both of these or the coarsest map only.
    """

    def __init__(self, head: nn.Module, *, ends: bool):
        super().__init__()
        self.head, self.ends = head, ends

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps, fine to coarse -> logits [B, K, h, w]."""
        return self.head({"low": maps[0], "high": maps[-1]} if self.ends else maps[-1])


def segmenter(
    model: nn.Module,
    classes: int,
    *,
    decoder: Decoder = "light",
    maps: int | None = None,
    width: int | None = None,
) -> Segmenter:
    """A segmentation network on a timm model, which becomes part of it.

    Args:
        model: of timm.
        classes: K.
        decoder: "light" is our own, see `LightDecoder`; "lraspp" (Howard et al. 2019,
            https://arxiv.org/abs/1905.02244), "fcn" (Long et al. 2015, https://arxiv.org/abs/1411.4038) and "deeplab"
            (version 3, Chen et al. 2017, https://arxiv.org/abs/1706.05587) are torchvision's heads. The last two use
            one map, of stride 32 by default: most convolutional networks of timm accept `output_stride = 8` or 16.
        maps: number of the model's coarsest maps that are used; None: see `MAPS`. One map more doubles the resolution
            of the logits.
        width: channels inside the decoder, by default 64 for "light" and 128 for "lraspp"; fixed for the others.

    Raises:
        ValueError: an argument is out of range.
        NoFeatureMaps: SR-M345 the model has no maps.
    """
    if decoder not in get_args(Decoder):
        raise ValueError(f"decoder must be one of {', '.join(get_args(Decoder))} for pixels, got {decoder!r}")
    if width is not None and (width < 1 or decoder in ("fcn", "deeplab")):
        raise ValueError(f"width must be at least 1, and the decoder light or lraspp, got {width} for {decoder}")
    backbone = as_backbone(model, maps=MAPS[decoder] if maps is None else maps)
    if decoder == "light":
        return Segmenter(backbone, LightDecoder(backbone.channels, classes, width or 64), ("classifier",))
    if decoder == "lraspp":
        from torchvision.models.segmentation.lraspp import LRASPPHead

        head = LRASPPHead(backbone.channels[0], backbone.channels[-1], classes, width or 128)
        return Segmenter(backbone, TorchvisionDecoder(head, ends=True), ("head.low_classifier", "head.high_classifier"))
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead
    from torchvision.models.segmentation.fcn import FCNHead

    single = (FCNHead if decoder == "fcn" else DeepLabHead)(backbone.channels[-1], classes)
    return Segmenter(backbone, TorchvisionDecoder(single, ends=False), ("head.4",))

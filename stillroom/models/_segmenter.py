"""Heads that turn a backbone's maps into a logit for every class and place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.models._backbone import Backbone, as_backbone

Decoder = Literal["light", "lraspp", "fcn", "deeplab"]

MAPS: dict[str, int] = {"light": 3, "lraspp": 3, "fcn": 1, "deeplab": 1}
"""Maps of the backbone that are made for each, unless more or fewer are asked for."""


class Segmenter(nn.Module):
    """A backbone, and a head on its maps.

    Args:
        backbone: takes [B, C, H, W], answers with maps.
        decoder: takes those maps, answers with logits [B, K, h, w] at the stride of the finest that it reads.
        classifiers: names, inside the decoder, of the convolutions whose outputs are the classes.

    Attributes:
        classifiers: the same names, from here.
    """

    def __init__(self, backbone: Backbone, decoder: nn.Module, classifiers: Sequence[str]):
        super().__init__()
        self.backbone, self.decoder = backbone, decoder
        self.classifiers = tuple(f"decoder.{name}" for name in classifiers)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] normalised -> logits [B, K, h, w]."""
        return self.decoder(self.backbone(images))


class LightDecoder(nn.Module):
    """The maps m_1 .. m_n, fine to coarse, brought to one width, added from the coarsest upwards, and read once.

        p_n = A_n m_n,    p_i = A_i m_i + up(p_(i+1)),    logits = W relu(norm(C p_1)) + b

    A_i are 1x1 convolutions, C is one of 3x3, `up` is bilinear, `norm` a batch norm. The top-down sum is that of
    feature pyramids (Lin et al. 2017, https://arxiv.org/abs/1612.03144, section 3), which read every level; this reads
    the finest.

    Args:
        channels: of each map.
        classes: K.
        width: channels between, 1 or more.
    """

    def __init__(self, channels: Sequence[int], classes: int, width: int = 64):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm, self.relu = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps, fine to coarse -> logits [B, K, h, w], as large as the first map."""
        levels = [lateral(one) for lateral, one in zip(self.lateral, maps, strict=True)]
        total = levels.pop()
        while levels:
            finer = levels.pop()
            total = finer + F.interpolate(total, finer.shape[-2:], mode="bilinear", align_corners=False)
        return self.classifier(self.relu(self.norm(self.smooth(total))))


class TorchvisionDecoder(nn.Module):
    """A head of torchvision's, on our maps.

    Args:
        head: takes a map, or with `ends` a dictionary of the finest, "low", and the coarsest, "high".
        ends: whether it reads both ends or the coarsest alone.
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
    """A segmenter on a timm model, which must not be used any more.

    Args:
        model: of timm.
        classes: K.
        decoder: "light" is ours, see `Light`; "lraspp" (Howard et al. 2019, https://arxiv.org/abs/1905.02244),
            "fcn" (Long et al. 2015, https://arxiv.org/abs/1411.4038) and "deeplab" (version 3, Chen et al. 2017,
            https://arxiv.org/abs/1706.05587) are torchvision's heads. The last two read one map, of stride 32 unless
            the model is told otherwise: most convolutional networks of timm take `output_stride = 8` or 16.
        maps: how many of the model's maps are made, the coarsest; None: see `MAPS`. One more makes the answer twice
            as fine.
        width: channels inside the head, of "light" 64 and of "lraspp" 128 unless said; the others have their own.

    Raises:
        ValueError: an argument out of its range.
        NoFeatureMaps: SR-M345 the model has no maps.
    """
    if decoder not in get_args(Decoder):
        raise ValueError(f"decoder must be one of {', '.join(get_args(Decoder))} for pixels, got {decoder!r}")
    if width is not None and (width < 1 or decoder in ("fcn", "deeplab")):
        raise ValueError(f"width must be 1 or more, of light or lraspp, got {width} for {decoder}")
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

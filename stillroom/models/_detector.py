"""One-stage detectors: torchvision's detection heads on any backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.models._backbone import Backbone
from stillroom.models._box_decoding import anchor_boxes, decode_predictions
from stillroom.models._family import NetworkSpec

Decoder = Literal["fcos", "retinanet", "ssdlite"]

PRIOR = 0.01
"""Initial score of all predictions, so that the loss of the many background predictions does not dominate at first. Lin
et al. 2017, https://arxiv.org/abs/1708.02002, section 3.3."""

INITIAL_DISTANCE = 2.0
"""Initial distance of an FCOS head's box sides from its centre, in strides; boxes without a size have no gradient."""

GROUP_CHANNELS = 8


class Neck(nn.Module):
    """A feature pyramid on a backbone's maps, with additional coarser levels.

    torchvision's feature pyramid (Lin et al. 2017, https://arxiv.org/abs/1612.03144) with batch norms, which are folded
    away on export, followed by convolutions of stride 2. Maps of constant resolution, as of a ViT, are resized first:
    of three maps the first is doubled in size and the last halved. Differs: ViTDet (Li et al. 2022,
    https://arxiv.org/abs/2203.16527) uses the last map only.

    Args:
        backbone: for `channels` and `strides`.
        width: channels of every output map.
        coarser: number of additional levels.

    Attributes:
        strides: of the output maps.
    """

    def __init__(self, backbone: Backbone, width: int, coarser: int):
        from torchvision.ops import FeaturePyramidNetwork

        super().__init__()
        strides = list(backbone.strides)
        count = len(strides)
        constant = count > 1 and len(set(strides)) == 1
        self.octaves = [count // 2 - i if constant else 0 for i in range(count)]
        levels = [max(1, round(stride / 2**up)) for stride, up in zip(strides, self.octaves, strict=True)]
        self.pyramid = FeaturePyramidNetwork(list(backbone.channels), width, norm_layer=nn.BatchNorm2d)
        self.coarser = nn.ModuleList(nn.Conv2d(width, width, 3, 2, 1) for _ in range(coarser))
        self.strides = tuple(levels + [levels[-1] * 2 ** (i + 1) for i in range(coarser)])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """[B, channels[i], h_i, w_i] -> [B, width, h_i, w_i], fine to coarse, the additional levels last."""
        maps = [_resize_octaves(one, up) for one, up in zip(maps, self.octaves, strict=True)]
        levels = list(self.pyramid({str(level): one for level, one in enumerate(maps)}).values())
        for convolution in self.coarser:
            levels.append(convolution(F.relu(levels[-1])))
        return levels


def _resize_octaves(feature: Tensor, up: int) -> Tensor:
    """The map enlarged by 2^up."""
    if up > 0:
        return F.interpolate(feature, scale_factor=2.0**up, mode="nearest")
    return F.max_pool2d(feature, 2**-up, ceil_mode=True) if up < 0 else feature


class Detector(nn.Module):
    """A backbone, a neck and a detection head of torchvision's.

    Args:
        backbone: [B, C, H, W] -> feature maps.
        neck: feature maps -> feature maps of one width.
        decoder: those maps -> the input of `decode_predictions`.
        generator: torchvision's anchor generator.
        coder: torchvision's box coder; None for FCOS.
        background: as in `decode_predictions`.

    Attributes:
        classifiers: names of the convolutions that compute the class logits.
    """

    def __init__(
        self, backbone: nn.Module, neck: nn.Module, decoder: nn.Module, generator: Any, coder: Any, background: bool
    ):
        super().__init__()
        self.backbone, self.neck, self.decoder = backbone, neck, decoder
        self.anchors = partial(anchor_boxes, generator)  # in a partial, so that the generator is not a submodule
        self.coder, self.background = coder, background
        self.classifiers = class_convolutions(decoder, "decoder.")

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] normalised -> [B, A, 4 + K], see `types.OutputKind`."""
        maps = self.neck(self.backbone(images))
        anchors = self.anchors(images, maps)
        size = images.shape[-2:]
        return decode_predictions(self.decoder(maps), anchors, size, self.coder, background=self.background)


def detector(
    backbone: Backbone,
    decoder: str,
    spec: NetworkSpec,
    *,
    width: int = 64,
    convs: int = 1,
    coarser: int = 1,
) -> Detector:
    """A one-stage detector on a backbone, small by default.

    fcos: one prediction per position, distances to the four sides (Tian et al. 2019, https://arxiv.org/abs/1904.01355).
    retinanet: nine anchors per position, of three sizes and three aspect ratios (Lin et al. 2017,
        https://arxiv.org/abs/1708.02002).
    ssdlite: six anchors, with separable convolutions and a softmax that includes the background (Sandler et al. 2018,
        https://arxiv.org/abs/1801.04381, section 6.2).

    The first two have one head for all maps and therefore use group norms, because a batch norm would mix maps of
    different statistics; in int8 files these stay in float. ssdlite has one head per map, with batch norms.

    Args:
        backbone: see `Backbone`.
        decoder: "fcos", "retinanet" or "ssdlite".
        spec: for the number of classes.
        width: channels of neck and head, a multiple of 8. torchvision's own models have 256.
        convs: 3x3 convolutions before the last one, in each branch of fcos and retinanet; 0 to 4. torchvision's own
            models have 4.
        coarser: additional pyramid levels, each half as large as the one before; torchvision's own models have 2.

    Raises:
        ValueError: an argument is out of range.
    """
    if decoder not in get_args(Decoder):
        raise ValueError(f"decoder must be one of {', '.join(get_args(Decoder))}, got {decoder}")
    if width < GROUP_CHANNELS or width % GROUP_CHANNELS:
        raise ValueError(f"width must be a multiple of {GROUP_CHANNELS}, got {width}")
    if not 0 <= convs <= 4:
        raise ValueError(f"convs must be 0 to 4, got {convs}")
    if coarser < 0:
        raise ValueError(f"coarser must be at least 0, got {coarser}")
    neck = Neck(backbone, width, coarser)
    build_head = {"fcos": _fcos, "retinanet": _retinanet, "ssdlite": _ssdlite}[decoder]
    return Detector(backbone, neck, *build_head(neck.strides, spec.classes or 1, width, convs))


Head = tuple[nn.Module, Any, Any, bool]
"""A head, its anchor generator, its box coder, and whether it has a background class."""


def _norm(width: int) -> nn.Module:
    return nn.GroupNorm(width // GROUP_CHANNELS, width)


def _fcos(strides: Sequence[int], classes: int, width: int, convs: int) -> Head:
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead

    head = FCOSHead(width, 1, classes, num_convs=0)
    head.classification_head = FCOSClassificationHead(width, 1, classes, convs, PRIOR, _norm)
    head.regression_head = FCOSRegressionHead(width, 1, convs, _norm)
    nn.init.constant_(head.regression_head.bbox_reg.bias, INITIAL_DISTANCE)
    # The score is the geometric mean of two probabilities, which are initialised equally.
    nn.init.constant_(head.regression_head.bbox_ctrness.bias, math.log(PRIOR / (1 - PRIOR)))
    return head, AnchorGenerator(tuple((stride,) for stride in strides), ((1.0,),) * len(strides)), None, False


def _retinanet(strides: Sequence[int], classes: int, width: int, convs: int) -> Head:
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.retinanet import RetinaNetHead

    sizes = tuple(tuple(round(4 * stride * 2 ** (third / 3)) for third in range(3)) for stride in strides)
    head = RetinaNetHead(width, 9, classes, norm_layer=_norm)
    for branch in (head.classification_head, head.regression_head):
        branch.conv = branch.conv[:convs]
    return head, AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)), head.regression_head.box_coder, False


def _ssdlite(strides: Sequence[int], classes: int, width: int, convs: int) -> Head:
    from torchvision.models.detection._utils import BoxCoder
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssdlite import SSDLiteHead

    generator = DefaultBoxGenerator([[2, 3] for _ in strides], min_ratio=0.1, max_ratio=0.9)
    counts = generator.num_anchors_per_location()
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)  # torchvision's
    head = SSDLiteHead([width] * len(strides), counts, classes + 1, norm)
    share = min(PRIOR, 0.5 / classes)
    with torch.no_grad():
        for block in head.classification_head.module_list:
            block[-1].bias.view(-1, classes + 1)[:, 0] = math.log((1 - classes * share) / share)
    return head, generator, BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)), True


def class_convolutions(head: nn.Module, prefix: str) -> tuple[str, ...]:
    """Names of the last convolutions of a head's classification branch: one, or for SSD one per map."""
    branch = head.get_submodule("classification_head")
    names = [name for name, part in branch.named_modules() if isinstance(part, nn.Conv2d)]
    if (blocks := getattr(branch, "module_list", None)) is None:
        return (f"{prefix}classification_head.{names[-1]}",)
    last = [[name for name in names if name.split(".")[1] == str(block)][-1] for block in range(len(blocks))]
    return tuple(f"{prefix}classification_head.{name}" for name in last)

"""One-stage detectors: torchvision's heads on any backbone, and torchvision's own whole models."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import cache, partial
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.models._backbone import Backbone
from stillroom.models._box_decoding import anchor_boxes, decode_predictions
from stillroom.models._errors import NotADenseDetector
from stillroom.models.network import NetworkSpec

Decoder = Literal["fcos", "retinanet", "ssdlite"]

PRIOR = 0.01
"""A new detector's score everywhere, so that the many places without an object don't drown the others. Lin et al. 2017,
https://arxiv.org/abs/1708.02002, section 3.3."""

REACH = 2.0
"""How far a new FCOS head's boxes go to each side, in strides: from boxes without a size it would learn nothing."""

CHANNELS_A_GROUP = 8


class Neck(nn.Module):
    """A backbone's maps brought to one width, with what the coarse ones know added to the fine ones, and coarser ones.

    torchvision's feature pyramid (Lin et al. 2017, https://arxiv.org/abs/1612.03144) with batch norms, which an
    exported file folds away, and behind it convolutions of stride 2. Maps of one resolution, a ViT's, are taken apart
    first: of three the first is doubled in size and the last halved. ViTDet (Li et al. 2022,
    https://arxiv.org/abs/2203.16527) does that with the last map alone.

    Args:
        backbone: says `channels` and `strides`.
        width: of every map that comes out.
        coarser: how many maps are added.

    Attributes:
        strides: of the maps that come out.
    """

    def __init__(self, backbone: Backbone, width: int, coarser: int):
        from torchvision.ops import FeaturePyramidNetwork

        super().__init__()
        strides = list(backbone.strides)
        count = len(strides)
        self.alike = count > 1 and len(set(strides)) == 1
        self.octaves = [count // 2 - i if self.alike else 0 for i in range(count)]
        levels = [max(1, round(stride / 2**up)) for stride, up in zip(strides, self.octaves, strict=True)]
        self.pyramid = FeaturePyramidNetwork(list(backbone.channels), width, norm_layer=nn.BatchNorm2d)
        self.coarser = nn.ModuleList(nn.Conv2d(width, width, 3, 2, 1) for _ in range(coarser))
        self.strides = tuple(levels + [levels[-1] * 2 ** (i + 1) for i in range(coarser)])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """[B, channels[i], h_i, w_i] -> [B, width, h_i, w_i], fine to coarse, and the coarser ones."""
        maps = [_octaves(one, up) for one, up in zip(maps, self.octaves, strict=True)]
        found = list(self.pyramid({str(level): one for level, one in enumerate(maps)}).values())
        for halve in self.coarser:
            found.append(halve(F.relu(found[-1])))
        return found


def _octaves(one: Tensor, up: int) -> Tensor:
    """The map 2^up times as large."""
    if up > 0:
        return F.interpolate(one, scale_factor=2.0**up, mode="nearest")
    return F.max_pool2d(one, 2**-up, ceil_mode=True) if up < 0 else one


class Detector(nn.Module):
    """A backbone, a neck, and a head of torchvision's on its maps.

    Args:
        backbone: takes [B, C, H, W], answers with maps.
        neck: takes those, answers with maps of one width.
        decoder: takes those, answers with tensors as `in_form` wants them.
        generator: torchvision's, of the priors.
        coder: torchvision's; None where the head is FCOS's.
        background: as for `in_form`.

    Attributes:
        classifiers: names of the convolutions whose outputs are the classes.
    """

    def __init__(
        self, backbone: nn.Module, neck: nn.Module, decoder: nn.Module, generator: Any, coder: Any, background: bool
    ):
        super().__init__()
        self.backbone, self.neck, self.decoder = backbone, neck, decoder
        self.priors = partial(anchor_boxes, generator)  # torchvision's generators are modules without weights
        self.coder, self.background = coder, background
        self.classifiers = _classifiers(decoder, "decoder.")

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] normalised -> [B, A, 4 + K], see `types.OutputKind`."""
        maps = self.neck(self.backbone(images))
        boxes = self.priors(images, maps)
        return decode_predictions(self.decoder(maps), boxes, images.shape[-2:], self.coder, background=self.background)


def detector(
    backbone: Backbone,
    decoder: str,
    spec: NetworkSpec,
    *,
    width: int = 64,
    convs: int = 1,
    coarser: int = 1,
) -> Detector:
    """A one-stage detector on a backbone's maps, light unless asked otherwise.

    fcos: one place a position, distances to the four sides (Tian et al. 2019, https://arxiv.org/abs/1904.01355).
    retinanet: nine, of three sizes and three shapes (Lin et al. 2017, https://arxiv.org/abs/1708.02002).
    ssdlite: six, with separable convolutions and one softmax with the background (Sandler et al. 2018,
        https://arxiv.org/abs/1801.04381, section 6.2).

    The first two have one head for all maps, so they normalise by groups of channels, for a batch norm would mix maps
    of different statistics; in int8 files that stays in floats. ssdlite has a head a map, with batch norms.

    Args:
        backbone: see `Backbone`.
        decoder: one of the three.
        spec: says how many classes.
        width: channels of the neck and the head, a multiple of 8. torchvision's whole models have 256.
        convs: 3x3 convolutions before the last, in each branch of the first two; 0 to 4. torchvision's have 4.
        coarser: maps added above the backbone's, each half as large; torchvision's have 2.

    Raises:
        ValueError: an argument is out of range.
    """
    if decoder not in get_args(Decoder):
        raise ValueError(f"decoder must be one of {', '.join(get_args(Decoder))}, got {decoder}")
    if width < CHANNELS_A_GROUP or width % CHANNELS_A_GROUP:
        raise ValueError(f"width must be a multiple of {CHANNELS_A_GROUP}, got {width}")
    if not 0 <= convs <= 4:
        raise ValueError(f"convs must be 0 to 4, got {convs}")
    if coarser < 0:
        raise ValueError(f"coarser must be at least 0, got {coarser}")
    neck = Neck(backbone, width, coarser)
    make = {"fcos": _fcos, "retinanet": _retinanet, "ssdlite": _ssdlite}[decoder]
    return Detector(backbone, neck, *make(neck.strides, spec.classes or 1, width, convs))


Made = tuple[nn.Module, Any, Any, bool]
"""A head, its priors' generator, its coder, and whether it has a background."""


def _norm(width: int) -> nn.Module:
    return nn.GroupNorm(width // CHANNELS_A_GROUP, width)


def _fcos(strides: Sequence[int], classes: int, width: int, convs: int) -> Made:
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead

    head = FCOSHead(width, 1, classes, num_convs=0)
    head.classification_head = FCOSClassificationHead(width, 1, classes, convs, PRIOR, _norm)
    head.regression_head = FCOSRegressionHead(width, 1, convs, _norm)
    nn.init.constant_(head.regression_head.bbox_reg.bias, REACH)
    # The score is the geometric mean of two probabilities, which begin alike.
    nn.init.constant_(head.regression_head.bbox_ctrness.bias, math.log(PRIOR / (1 - PRIOR)))
    return head, AnchorGenerator(tuple((stride,) for stride in strides), ((1.0,),) * len(strides)), None, False


def _retinanet(strides: Sequence[int], classes: int, width: int, convs: int) -> Made:
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.retinanet import RetinaNetHead

    sizes = tuple(tuple(round(4 * stride * 2 ** (third / 3)) for third in range(3)) for stride in strides)
    head = RetinaNetHead(width, 9, classes, norm_layer=_norm)
    for branch in (head.classification_head, head.regression_head):
        branch.conv = branch.conv[:convs]
    return head, AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)), head.regression_head.box_coder, False


def _ssdlite(strides: Sequence[int], classes: int, width: int, convs: int) -> Made:
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


class TorchvisionDetector(nn.Module):
    """A whole detector of torchvision's that answers as `Detector` does; `wrapped` makes one."""

    classifiers: tuple[str, ...]
    _background: bool

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] normalised -> [B, A, 4 + K], see `types.OutputKind`."""
        own = cast(Any, self)
        maps = own.backbone(images)
        maps = [maps] if isinstance(maps, Tensor) else list(maps.values())
        boxes = anchor_boxes(own.anchor_generator, images, maps)
        return decode_predictions(own.head(maps), boxes, images.shape[-2:], own.box_coder, background=self._background)


def adapt_detector(model: nn.Module) -> TorchvisionDetector:
    """An FCOS, RetinaNet, SSD or SSDLite of torchvision's, changed in place to answer [B, A, 4 + K]; its names stay.

    Class k is the model's label k; of an SSD, whose label 0 is the background, its label k + 1. What the model does to
    pixels before its backbone is left to `Network`, and so is resizing, which changes an image's aspect here.

    Raises:
        NotADenseDetector: SR-M340 the model is no one-stage detector of torchvision's.
    """
    from torchvision.models.detection import FCOS, RetinaNet
    from torchvision.models.detection.ssd import SSD

    if not isinstance(model, FCOS | RetinaNet | SSD):
        raise NotADenseDetector(model=type(model).__name__)
    model.__class__ = _kind(cast(Hashable, type(model)))
    places = cast(TorchvisionDetector, model)
    places._background = isinstance(model, SSD)
    places.classifiers = _classifiers(cast(nn.Module, model.head), "head.")
    return places


@cache
def _kind(kind: type[nn.Module]) -> type[nn.Module]:
    """The model's class with another `forward`: parts, names and everything else stay the model's."""
    return type(f"{kind.__name__}Places", (TorchvisionDetector, kind), {})


def _classifiers(head: nn.Module, prefix: str) -> tuple[str, ...]:
    """The last convolutions of a head's classification branch: one, or of an SSD one a map."""
    branch = head.get_submodule("classification_head")
    last = [name for name, part in branch.named_modules() if isinstance(part, nn.Conv2d)]
    if (blocks := getattr(branch, "module_list", None)) is None:
        return (f"{prefix}classification_head.{last[-1]}",)
    ends = [[name for name in last if name.split(".")[1] == str(block)][-1] for block in range(len(blocks))]
    return tuple(f"{prefix}classification_head.{name}" for name in ends)

"""torchvision's own one-stage detectors, adapted to return [B, A, 4 + K]."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, cast

from torch import Tensor, nn

from stillroom.models._box_decoding import anchor_boxes, decode_predictions
from stillroom.models._detector import class_convolutions
from stillroom.models._errors import NotADenseDetector


class TorchvisionDetector(nn.Module):
    """A detector of torchvision's with the output of `Detector`, made by `adapt_detector`."""

    classifiers: tuple[str, ...]
    _background: bool

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] normalised -> [B, A, 4 + K], see `types.OutputKind`."""
        model = cast(Any, self)
        maps = model.backbone(images)
        maps = [maps] if isinstance(maps, Tensor) else list(maps.values())
        anchors = anchor_boxes(model.anchor_generator, images, maps)
        size = images.shape[-2:]
        return decode_predictions(model.head(maps), anchors, size, model.box_coder, background=self._background)


def adapt_detector(model: nn.Module) -> TorchvisionDetector:
    """Change an FCOS, RetinaNet, SSD or SSDLite of torchvision's in place to return [B, A, 4 + K].

    Names of submodules stay. Class k is the model's label k; for an SSD, whose label 0 is the background, its label
    k + 1. Normalisation and resizing, which changes the aspect ratio here, are left to `Network`.

    Raises:
        NotADenseDetector: SR-M340 the model is not a one-stage detector of torchvision's.
    """
    from torchvision.models.detection import FCOS, RetinaNet
    from torchvision.models.detection.ssd import SSD

    if not isinstance(model, FCOS | RetinaNet | SSD):
        raise NotADenseDetector(model=type(model).__name__)
    model.__class__ = _detector_class(cast(Hashable, type(model)))
    detector = cast(TorchvisionDetector, model)
    detector._background = isinstance(model, SSD)
    detector.classifiers = class_convolutions(cast(nn.Module, model.head), "head.")
    return detector


@cache
def _detector_class(model_class: type[nn.Module]) -> type[nn.Module]:
    """A subclass of the model's class with the `forward` of `TorchvisionDetector`."""
    return type(f"{model_class.__name__}Adapted", (TorchvisionDetector, model_class), {})

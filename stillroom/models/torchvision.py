"""Any classifier, segmenter or one-stage detector of torchvision: `torchvision/mobilenet_v3_small`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stillroom.config.plugins import near
from stillroom.models._backbone import Embedder
from stillroom.models._errors import ModelForOtherTask, UnknownModel
from stillroom.models._family import NetworkSpec
from stillroom.models._library_errors import argument_errors, download_errors
from stillroom.models._probe import last_classifier, resolve_input_size
from stillroom.models.network import IMAGENET, Network
from stillroom.types import OutputKind

PREFIX = "torchvision/"

TWO_STAGE = ("fasterrcnn", "maskrcnn", "keypointrcnn")
"""Prefixes of the names of two-stage detectors."""

CLASSIFIERS: dict[str, tuple[str, ...]] = {
    "deeplabv3": ("classifier.4",),
    "fcn": ("classifier.4",),
    "lraspp": ("classifier.low_classifier", "classifier.high_classifier"),
}
"""The last convolutions of segmentation models, by the prefix of their name."""


class Torchvision:
    """torchvision's own arguments are passed on: `dropout = 0.1`, `width_mult = 0.5`.

    All its models take colour images, so grey ones are repeated three times. `pretrained` loads the library's default
    weights. ViTs have a fixed input size; others take the data's.

    The auxiliary heads of segmentation models are removed, and for vectors the last layer of a classifier. Two-stage
    detectors are not supported, because their predictions do not correspond between two networks.
    """

    example = "torchvision/shufflenet_v2_x0_5"
    has_pixel_statistics = True

    def matches(self, name: str) -> bool:
        """See `Family.matches`."""
        return name.startswith(PREFIX)

    def names(self, like: str = "") -> list[str]:
        """See `Family.names`."""
        if not like:
            return [f"{PREFIX}NAME"]
        return [
            PREFIX + name
            for name in sorted(_output_kinds())
            if like in PREFIX + name and not name.startswith(TWO_STAGE)
        ]

    def build(self, name: str, spec: NetworkSpec, **arguments: Any) -> Network:
        """See `Family.build`."""
        variant = name.removeprefix(PREFIX)
        _check_name(name, spec.output_kind)
        builders = {"classes": _classifier, "vector": _embedder, "pixels": _segmenter, "boxes": _detector}
        return builders[spec.output_kind](name, variant, spec, arguments)


def _classifier(name: str, variant: str, spec: NetworkSpec, arguments: dict[str, Any]) -> Network:
    """A classifier. The library loads pretrained weights only with their own classes, so the head is replaced later."""
    weights, arguments = _default_weights(variant), _without_warning(variant) | arguments
    if spec.pretrained:
        with download_errors(name):
            module = _get(variant, weights=weights, **arguments)
        _replace_head(module, len(weights.meta["categories"]), spec.classes)
    else:
        with argument_errors(name):
            module = _get(variant, weights=None, **arguments | _classes(spec))
    network = Network(module, classes=spec.classes or 0, **_pixels(weights.transforms(), spec))
    _resolve_classifier_size(network, module, name, spec, weights)
    network.head = last_classifier(module, network.classes)
    return network


def _embedder(name: str, variant: str, spec: NetworkSpec, arguments: dict[str, Any]) -> Network:
    """A classifier without its last layer."""
    weights, arguments = _default_weights(variant), _without_warning(variant) | arguments
    with download_errors(name) if spec.pretrained else argument_errors(name):
        model = _get(variant, weights=weights if spec.pretrained else None, **arguments)
    (last,) = last_classifier(model, len(weights.meta["categories"]))
    model.set_submodule(last, nn.Identity())
    network = Network(
        Embedder(model),
        classes=0,
        head=("vector",),
        output_kind="vector",
        prefix="backbone.",
        removed_heads=(last,),
        **_pixels(weights.transforms(), spec),
    )
    return _resolve_classifier_size(network, model, name, spec, weights)


def _segmenter(name: str, variant: str, spec: NetworkSpec, arguments: dict[str, Any]) -> Network:
    """A segmentation model without its auxiliary head."""
    weights = _default_weights(variant)
    if spec.pretrained:
        with download_errors(name):
            module = _get(variant, weights=weights, **arguments)
        _replace_head(module, len(weights.meta["categories"]), spec.classes)
    else:
        with argument_errors(name):  # weights_backbone is given, because by default the library would download them
            module = _get(variant, weights=None, **{"weights_backbone": None} | arguments | _classes(spec))
    if getattr(module, "aux_classifier", None) is not None:
        module.aux_classifier = None
    network = Network(
        module,
        classes=spec.classes or 0,
        head=next(heads for prefix, heads in CLASSIFIERS.items() if variant.startswith(prefix)),
        output_kind="pixels",
        trunk=("backbone",),
        **_pixels(weights.transforms(), spec),
    )
    return resolve_input_size(network, name, spec.size, own=int(weights.transforms().resize_size[0]))


def _detector(name: str, variant: str, spec: NetworkSpec, arguments: dict[str, Any]) -> Network:
    """A detector whose preprocessing and postprocessing are left to this program."""
    from stillroom.models._torchvision_detector import adapt_detector

    weights, arguments = _default_weights(variant), dict(arguments)
    background = int(variant.startswith("ssd"))  # the others have one sigmoid per class and no background
    if spec.classes:
        arguments["num_classes"] = spec.classes + background
    with argument_errors(name):
        module = _get(variant, weights=None, **{"weights_backbone": None} | arguments)
    if spec.pretrained:
        with download_errors(name):
            _load_matching(module, weights.get_state_dict(progress=False, check_hash=True))
    with argument_errors(name):
        adapted = adapt_detector(module)
    network = Network(
        adapted,
        classes=spec.classes or len(weights.meta["categories"]) - background,
        head=tuple(getattr(adapted, "classifiers", ())),
        output_kind="boxes",
        trunk=("backbone",),
        **_pixels(module.transform, spec),
    )
    side = module.transform.fixed_size or module.transform.min_size
    return resolve_input_size(network, name, spec.size, own=int(side[0]), fixed=module.transform.fixed_size is not None)


def _get(variant: str, **arguments: Any) -> Any:
    from torchvision.models import get_model

    return get_model(variant, **arguments)


def _default_weights(variant: str) -> Any:
    """The library's default weights, with their preprocessing and classes."""
    from torchvision.models import get_model_weights

    return get_model_weights(variant).DEFAULT


def _output_kinds() -> dict[str, OutputKind]:
    """Name -> output kind of each of the library's models."""
    from torchvision import models

    modules: list[tuple[Any, OutputKind]] = [
        (models, "classes"),
        (models.segmentation, "pixels"),
        (models.detection, "boxes"),
    ]
    return {name: kind for module, kind in modules for name in models.list_models(module=module)}


def _check_name(name: str, output_kind: OutputKind) -> None:
    """Check that the library has the model, and that it is for the task."""
    kinds = _output_kinds()
    own_kind = kinds.get(name.removeprefix(PREFIX))
    if own_kind is None:
        raise UnknownModel(model=name, near=near(name, [PREFIX + known for known in kinds]))
    if own_kind != ("classes" if output_kind == "vector" else output_kind):
        able = [PREFIX + known for known in kinds if kinds[known] == output_kind and not known.startswith(TWO_STAGE)]
        raise ModelForOtherTask(model=name, theirs=own_kind, output_kind=output_kind, near=", ".join(able[:6]))


def _classes(spec: NetworkSpec) -> dict[str, int]:
    return {"num_classes": spec.classes} if spec.classes else {}


def _pixels(transforms: Any, spec: NetworkSpec) -> dict[str, Any]:
    """`mean` and `std` for `Network`, see `NetworkSpec.pixels`."""
    mean = getattr(transforms, "mean", None) or getattr(transforms, "image_mean", None) or IMAGENET[0]
    std = getattr(transforms, "std", None) or getattr(transforms, "image_std", None) or IMAGENET[1]
    return spec.pixels(mean, std)


def _resolve_classifier_size(network: Network, module: Any, name: str, spec: NetworkSpec, weights: Any) -> Network:
    own = getattr(module, "image_size", None) or int(weights.transforms().crop_size[0])
    return resolve_input_size(network, name, spec.size, own=own, fixed=hasattr(module, "image_size"))


def _without_warning(variant: str) -> dict[str, Any]:
    """An argument without which two models warn; its value is the library's announced future default."""
    return {"init_weights": False} if variant in ("googlenet", "inception_v3") else {}


def _replace_head(module: nn.Module, before: int, classes: int | None) -> None:
    """Replace classifiers, also of auxiliary heads, by new ones with K outputs if K differs from `before`."""
    if classes in (None, before):
        return
    for name, part in list(module.named_modules()):
        if isinstance(part, nn.Linear) and part.out_features == before:
            module.set_submodule(name, nn.Linear(part.in_features, classes, bias=part.bias is not None))
        if isinstance(part, nn.Conv2d) and part.out_channels == before and part.kernel_size == (1, 1):
            module.set_submodule(name, nn.Conv2d(part.in_channels, classes, 1, bias=part.bias is not None))


def _load_matching(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load the weights whose shapes match; a classifier with another number of classes stays new."""
    own = module.state_dict()
    module.load_state_dict(
        {name: state[name] if state[name].shape == value.shape else value for name, value in own.items()}
    )

"""Any classifier, segmenter or one-stage detector of torchvision: `torchvision/mobilenet_v3_small`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stillroom.config.plugins import near
from stillroom.models._backbone import Embedder
from stillroom.models._errors import ModelForOtherTask, UnknownModel
from stillroom.models._probe import argument_errors, download_errors, last_classifier, resolve_input_size
from stillroom.models.network import IMAGENET, Network, NetworkSpec
from stillroom.types import OutputKind

PREFIX = "torchvision/"

STAGED = ("fasterrcnn", "maskrcnn", "keypointrcnn")
"""How the names of detectors of two stages begin."""

CLASSIFIERS: dict[str, tuple[str, ...]] = {
    "deeplabv3": ("classifier.4",),
    "fcn": ("classifier.4",),
    "lraspp": ("classifier.low_classifier", "classifier.high_classifier"),
}
"""Where the last convolution of a segmenter is, by how its name begins."""


class Torchvision:
    """torchvision's own arguments pass through: `dropout = 0.1`, `width_mult = 0.5`.

    Its models take colour only, so grey images are repeated three times. `pretrained` takes the library's default
    weights. ViTs have a fixed size; others take the data's.

    A segmenter's auxiliary head is left out. Where a vector is asked for, a classifier's last layer is left out.
    Detectors of two stages are not taken: their boxes do not come from places that two networks could share.
    """

    example = "torchvision/shufflenet_v2_x0_5"
    has_pixel_statistics = True

    def matches(self, name: str) -> bool:
        """As `Family.knows`."""
        return name.startswith(PREFIX)

    def names(self, like: str = "") -> list[str]:
        """As `Family.names`."""
        if not like:
            return [f"{PREFIX}NAME"]
        return [PREFIX + name for name in sorted(_says()) if like in PREFIX + name and not name.startswith(STAGED)]

    def build(self, name: str, spec: NetworkSpec, **arguments: Any) -> Network:
        """As `Family.build`."""
        variant = name.removeprefix(PREFIX)
        _checked(name, spec.output_kind)
        make = {"classes": _classifier, "vector": _embedder, "pixels": _segmenter, "boxes": _detector}[spec.output_kind]
        return make(name, variant, spec, arguments)


def _classifier(name: str, variant: str, spec: NetworkSpec, arguments: dict[str, Any]) -> Network:
    """The library takes trained weights only with the classes they were trained on."""
    trained, given = _trained(variant), _quiet(variant) | arguments
    if spec.pretrained:
        with download_errors(name):
            module = _get(variant, weights=trained, **given)
        _replace_head(module, len(trained.meta["categories"]), spec.classes)
    else:
        with argument_errors(name):
            module = _get(variant, weights=None, **given | _classes(spec))
    network = Network(module, classes=spec.classes or 0, **_pixels(trained.transforms(), spec))
    _sized(network, module, name, spec, trained)
    network.head = last_classifier(module, network.classes)
    return network


def _embedder(name: str, variant: str, spec: NetworkSpec, arguments: dict[str, Any]) -> Network:
    """The classifier without its last layer."""
    trained, given = _trained(variant), _quiet(variant) | arguments
    with download_errors(name) if spec.pretrained else argument_errors(name):
        model = _get(variant, weights=trained if spec.pretrained else None, **given)
    (last,) = last_classifier(model, len(trained.meta["categories"]))
    model.set_submodule(last, nn.Identity())
    network = Network(
        Embedder(model),
        classes=0,
        head=("vector",),
        output_kind="vector",
        prefix="backbone.",
        removed_heads=(last,),
        **_pixels(trained.transforms(), spec),
    )
    return _sized(network, model, name, spec, trained)


def _segmenter(name: str, variant: str, spec: NetworkSpec, arguments: dict[str, Any]) -> Network:
    """The library's whole model, auxiliary head apart."""
    trained = _trained(variant)
    if spec.pretrained:
        with download_errors(name):
            module = _get(variant, weights=trained, **arguments)
        _replace_head(module, len(trained.meta["categories"]), spec.classes)
    else:
        with argument_errors(name):  # said, because the library would fetch the backbone's weights otherwise
            module = _get(variant, weights=None, **{"weights_backbone": None} | arguments | _classes(spec))
    if getattr(module, "aux_classifier", None) is not None:
        module.aux_classifier = None
    network = Network(
        module,
        classes=spec.classes or 0,
        head=next(heads for begin, heads in CLASSIFIERS.items() if variant.startswith(begin)),
        output_kind="pixels",
        trunk=("backbone",),
        **_pixels(trained.transforms(), spec),
    )
    return resolve_input_size(network, name, spec.size, own=int(trained.transforms().resize_size[0]))


def _detector(name: str, variant: str, spec: NetworkSpec, arguments: dict[str, Any]) -> Network:
    """The library's whole model with what comes before and behind its network left to this program."""
    from stillroom.models._detector import adapt_detector

    trained, given = _trained(variant), dict(arguments)
    background = int(variant.startswith("ssd"))  # the others' scores are one class against the rest
    theirs = len(trained.meta["categories"])
    if spec.classes:
        given["num_classes"] = spec.classes + background
    with argument_errors(name):
        module = _get(variant, weights=None, **{"weights_backbone": None} | given)
    if spec.pretrained:
        with download_errors(name):
            _filled(module, trained.get_state_dict(progress=False, check_hash=True))
    with argument_errors(name):
        inside = adapt_detector(module)
    classes = spec.classes or theirs - background
    network = Network(
        inside,
        classes=classes,
        head=tuple(getattr(inside, "classifiers", ())),
        output_kind="boxes",
        trunk=("backbone",),
        **_pixels(module.transform, spec),
    )
    side = module.transform.fixed_size or module.transform.min_size
    return resolve_input_size(network, name, spec.size, own=int(side[0]), fixed=module.transform.fixed_size is not None)


def _get(variant: str, **arguments: Any) -> Any:
    from torchvision.models import get_model

    return get_model(variant, **arguments)


def _trained(variant: str) -> Any:
    """The library's default weights, which also say how they want pixels."""
    from torchvision.models import get_model_weights

    return get_model_weights(variant).DEFAULT


def _says() -> dict[str, OutputKind]:
    """What each of the library's models says."""
    from torchvision import models

    parts: list[tuple[Any, OutputKind]] = [
        (models, "classes"),
        (models.segmentation, "pixels"),
        (models.detection, "boxes"),
    ]
    return {name: answers for part, answers in parts for name in models.list_models(module=part)}


def _checked(name: str, output_kind: OutputKind) -> None:
    """Refuse a name that the library has not, and a model for another task."""
    says = _says()
    theirs = says.get(name.removeprefix(PREFIX))
    if theirs is None:
        raise UnknownModel(model=name, near=near(name, [PREFIX + known for known in says]))
    if theirs != ("classes" if output_kind == "vector" else output_kind):
        able = [PREFIX + known for known in says if says[known] == output_kind and not known.startswith(STAGED)]
        raise ModelForOtherTask(model=name, theirs=theirs, output_kind=output_kind, near=", ".join(able[:6]))


def _classes(spec: NetworkSpec) -> dict[str, int]:
    return {"num_classes": spec.classes} if spec.classes else {}


def _pixels(said: Any, spec: NetworkSpec) -> dict[str, Any]:
    """Mean and standard deviation: the library's, but the data's where training begins with nothing."""
    mean = getattr(said, "mean", None) or getattr(said, "image_mean", None) or IMAGENET[0]
    std = getattr(said, "std", None) or getattr(said, "image_std", None) or IMAGENET[1]
    return spec.pixels(mean, std)


def _sized(network: Network, module: Any, name: str, spec: NetworkSpec, trained: Any) -> Network:
    """A classifier's network at the size of the data, or at the library's."""
    own = getattr(module, "image_size", None) or int(trained.transforms().crop_size[0])
    return resolve_input_size(network, name, spec.size, own=own, fixed=hasattr(module, "image_size"))


def _quiet(variant: str) -> dict[str, Any]:
    """These two warn unless told how to begin: as the library itself will from its next version on."""
    return {"init_weights": False} if variant in ("googlenet", "inception_v3") else {}


def _replace_head(module: nn.Module, before: int, classes: int | None) -> None:
    """A fresh classifier of K outputs where the trained one has another number; also in auxiliary heads."""
    if classes in (None, before):
        return
    for name, part in list(module.named_modules()):
        if isinstance(part, nn.Linear) and part.out_features == before:
            module.set_submodule(name, nn.Linear(part.in_features, classes, bias=part.bias is not None))
        if isinstance(part, nn.Conv2d) and part.out_channels == before and part.kernel_size == (1, 1):
            module.set_submodule(name, nn.Conv2d(part.in_channels, classes, 1, bias=part.bias is not None))


def _filled(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Trained weights where they fit: a classifier of another number of classes stays new."""
    own = module.state_dict()
    module.load_state_dict(
        {name: state[name] if state[name].shape == value.shape else value for name, value in own.items()}
    )

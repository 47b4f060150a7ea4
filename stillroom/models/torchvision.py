"""Any classifier, segmenter or one-stage detector of torchvision: `torchvision/mobilenet_v3_small`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stillroom.config.plugins import near
from stillroom.models._backbone import Embedder
from stillroom.models._errors import ModelForOtherTask, UnknownModel
from stillroom.models._probe import arguments_of, fetching, last_classifier, settled
from stillroom.models.network import IMAGENET, Facts, Network
from stillroom.types import Answers

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
    states_pixels = True

    def knows(self, name: str) -> bool:
        """As `Family.knows`."""
        return name.startswith(PREFIX)

    def names(self, like: str = "") -> list[str]:
        """As `Family.names`."""
        if not like:
            return [f"{PREFIX}NAME"]
        return [PREFIX + name for name in sorted(_says()) if like in PREFIX + name and not name.startswith(STAGED)]

    def build(self, name: str, facts: Facts, **arguments: Any) -> Network:
        """As `Family.build`."""
        variant = name.removeprefix(PREFIX)
        _checked(name, facts.answers)
        make = {"classes": _classifier, "vector": _embedder, "pixels": _segmenter, "boxes": _detector}[facts.answers]
        return make(name, variant, facts, arguments)


def _classifier(name: str, variant: str, facts: Facts, arguments: dict[str, Any]) -> Network:
    """The library takes trained weights only with the classes they were trained on."""
    trained, given = _trained(variant), _quiet(variant) | arguments
    if facts.pretrained:
        with fetching(name):
            module = _get(variant, weights=trained, **given)
        _replace_head(module, len(trained.meta["categories"]), facts.classes)
    else:
        with arguments_of(name):
            module = _get(variant, weights=None, **given | _classes(facts))
    network = Network(module, classes=facts.classes or 0, **_pixels(trained.transforms(), facts))
    _sized(network, module, name, facts, trained)
    network.head = last_classifier(module, network.classes)
    return network


def _embedder(name: str, variant: str, facts: Facts, arguments: dict[str, Any]) -> Network:
    """The classifier without its last layer."""
    trained, given = _trained(variant), _quiet(variant) | arguments
    with fetching(name) if facts.pretrained else arguments_of(name):
        model = _get(variant, weights=trained if facts.pretrained else None, **given)
    (last,) = last_classifier(model, len(trained.meta["categories"]))
    model.set_submodule(last, nn.Identity())
    network = Network(
        Embedder(model),
        classes=0,
        head=("vector",),
        answers="vector",
        prefix="backbone.",
        spare=(last,),
        **_pixels(trained.transforms(), facts),
    )
    return _sized(network, model, name, facts, trained)


def _segmenter(name: str, variant: str, facts: Facts, arguments: dict[str, Any]) -> Network:
    """The library's whole model, auxiliary head apart."""
    trained = _trained(variant)
    if facts.pretrained:
        with fetching(name):
            module = _get(variant, weights=trained, **arguments)
        _replace_head(module, len(trained.meta["categories"]), facts.classes)
    else:
        with arguments_of(name):  # said, because the library would fetch the backbone's weights otherwise
            module = _get(variant, weights=None, **{"weights_backbone": None} | arguments | _classes(facts))
    if getattr(module, "aux_classifier", None) is not None:
        module.aux_classifier = None
    network = Network(
        module,
        classes=facts.classes or 0,
        head=next(heads for begin, heads in CLASSIFIERS.items() if variant.startswith(begin)),
        answers="pixels",
        trunk=("backbone",),
        **_pixels(trained.transforms(), facts),
    )
    return settled(network, name, facts.size, own=int(trained.transforms().resize_size[0]))


def _detector(name: str, variant: str, facts: Facts, arguments: dict[str, Any]) -> Network:
    """The library's whole model with what comes before and behind its network left to this program."""
    from stillroom.models._boxes import wrapped

    trained, given = _trained(variant), dict(arguments)
    background = int(variant.startswith("ssd"))  # the others' scores are one class against the rest
    theirs = len(trained.meta["categories"])
    if facts.classes:
        given["num_classes"] = facts.classes + background
    with arguments_of(name):
        module = _get(variant, weights=None, **{"weights_backbone": None} | given)
    if facts.pretrained:
        with fetching(name):
            _filled(module, trained.get_state_dict(progress=False, check_hash=True))
    with arguments_of(name):
        inside = wrapped(module)
    classes = facts.classes or theirs - background
    network = Network(
        inside,
        classes=classes,
        head=tuple(getattr(inside, "classifiers", ())),
        answers="boxes",
        trunk=("backbone",),
        **_pixels(module.transform, facts),
    )
    side = module.transform.fixed_size or module.transform.min_size
    return settled(network, name, facts.size, own=int(side[0]), fixed=module.transform.fixed_size is not None)


def _get(variant: str, **arguments: Any) -> Any:
    from torchvision.models import get_model

    return get_model(variant, **arguments)


def _trained(variant: str) -> Any:
    """The library's default weights, which also say how they want pixels."""
    from torchvision.models import get_model_weights

    return get_model_weights(variant).DEFAULT


def _says() -> dict[str, Answers]:
    """What each of the library's models says."""
    from torchvision import models

    parts: list[tuple[Any, Answers]] = [
        (models, "classes"),
        (models.segmentation, "pixels"),
        (models.detection, "boxes"),
    ]
    return {name: answers for part, answers in parts for name in models.list_models(module=part)}


def _checked(name: str, answers: Answers) -> None:
    """Refuse a name that the library has not, and a model for another task."""
    says = _says()
    theirs = says.get(name.removeprefix(PREFIX))
    if theirs is None:
        raise UnknownModel(model=name, near=near(name, [PREFIX + known for known in says]))
    if theirs != ("classes" if answers == "vector" else answers):
        able = [PREFIX + known for known in says if says[known] == answers and not known.startswith(STAGED)]
        raise ModelForOtherTask(model=name, theirs=theirs, answers=answers, near=", ".join(able[:6]))


def _classes(facts: Facts) -> dict[str, int]:
    return {"num_classes": facts.classes} if facts.classes else {}


def _pixels(said: Any, facts: Facts) -> dict[str, Any]:
    """Mean and standard deviation: the library's, but the data's where training begins with nothing."""
    mean = getattr(said, "mean", None) or getattr(said, "image_mean", None) or IMAGENET[0]
    std = getattr(said, "std", None) or getattr(said, "image_std", None) or IMAGENET[1]
    return facts.pixels(mean, std)


def _sized(network: Network, module: Any, name: str, facts: Facts, trained: Any) -> Network:
    """A classifier's network at the size of the data, or at the library's."""
    own = getattr(module, "image_size", None) or int(trained.transforms().crop_size[0])
    return settled(network, name, facts.size, own=own, fixed=hasattr(module, "image_size"))


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

"""Any classifier of torchvision: `torchvision/mobilenet_v3_small`."""

from __future__ import annotations

from typing import Any

from torch import nn

from stillroom.errors import Failure
from stillroom.models._probe import arguments_of, fetching, last_classifier, settled
from stillroom.models.network import Facts, Network
from stillroom.plugins import near

PREFIX = "torchvision/"


class Torchvision:
    """torchvision's own arguments pass through: `dropout = 0.1`, `width_mult = 0.5`.

    Its models take colour only, so grey images are repeated three times. `pretrained` takes the library's default
    weights. ViTs have a fixed size; others take the data's.
    """

    example = "torchvision/shufflenet_v2_x0_5"
    states_pixels = True

    def knows(self, name: str) -> bool:
        """As `Family.knows`."""
        return name.startswith(PREFIX)

    def names(self, like: str = "") -> list[str]:
        """As `Family.names`."""
        return [PREFIX + name for name in _library() if like in PREFIX + name] if like else [f"{PREFIX}NAME"]

    def build(self, name: str, facts: Facts, **arguments: Any) -> Network:
        """As `Family.build`."""
        from torchvision.models import get_model, get_model_weights

        variant = name.removeprefix(PREFIX)
        if variant not in _library():
            raise Failure("SR-M303", model=name, near=near(name, [PREFIX + known for known in _library()]))
        trained = get_model_weights(variant).DEFAULT
        given = _quiet(variant) | arguments
        if facts.pretrained:  # the library takes trained weights only with the classes they were trained on
            with fetching(name):
                module = get_model(variant, weights=trained, **given)
            _replace_head(module, len(trained.meta["categories"]), facts.classes)
        else:
            with arguments_of(name):
                heads = {"num_classes": facts.classes} if facts.classes else {}
                module = get_model(variant, weights=None, **given | heads)
        pixels = trained.transforms()
        mean, std = pixels.mean, pixels.std
        if not facts.pretrained:
            mean, std = facts.mean or mean, facts.std or std
        network = Network(module, classes=facts.classes or 0, mean=mean, std=std)
        own = getattr(module, "image_size", None) or int(pixels.crop_size[0])
        settled(network, name, facts.size, own=own, fixed=hasattr(module, "image_size"))
        network.head = last_classifier(module, network.classes)
        return network


def _library() -> list[str]:
    import torchvision

    return torchvision.models.list_models(module=torchvision.models)


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

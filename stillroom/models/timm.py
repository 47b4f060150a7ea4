"""Any model of timm: `timm/mobilenetv4_conv_small`.

With a tag where one wants certain weights: `timm/vit_tiny_patch16_224.augreg_in21k`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from stillroom.config.plugins import near
from stillroom.models._backbone import Embedder, as_backbone, removed_parts
from stillroom.models._errors import PretrainedWeightsNotFound, UnknownModel
from stillroom.models._probe import argument_errors, download_errors, hub_offline_if_unreachable, resolve_input_size
from stillroom.models.network import IMAGENET, Network, NetworkSpec

PREFIX = "timm/"


class Timm:
    """timm's own arguments pass through: `pad_type = "same"`, `drop_path_rate = 0.1`, `img_size = 64`.

    Some arguments are this program's. With `distilled = true` a ViT has a distillation token, see `_distilled`. Where
    pixels or boxes are asked for, `decoder` names the head that is built on the model's maps, `maps` is how many of
    them it reads, and the further arguments of `_pixels.segmenter` or `_boxes.detector` belong to that head.

    A model of fixed size (most ViTs) keeps its own unless `img_size` is given; others take the data's size.
    Only names of timm's own registry are built: `hf-hub:` and `local-dir:` names fetch a stranger's settings.
    """

    example = "timm/test_resnet"
    has_pixel_statistics = True

    def matches(self, name: str) -> bool:
        """As `Family.knows`."""
        return name.startswith(PREFIX)

    def names(self, like: str = "") -> list[str]:
        """As `Family.names`."""
        if not like:
            return [f"{PREFIX}NAME"]
        import timm

        return [PREFIX + name for name in timm.list_models() if like in PREFIX + name]

    def build(self, name: str, spec: NetworkSpec, **arguments: Any) -> Network:
        """As `Family.build`."""
        _known(name, spec.pretrained)
        module, said, wears = _MADE[spec.output_kind](name, spec, arguments)
        pixels = spec.pixels(said.get("mean") or IMAGENET[0], said.get("std") or IMAGENET[1])
        network = Network(module, channels=spec.channels, output_kind=spec.output_kind, **pixels, **wears)
        return resolve_input_size(
            network, name, spec.size, own=_side(arguments, said), fixed=bool(said.get("fixed_input_size"))
        )


Made = tuple[nn.Module, dict[str, Any], dict[str, Any]]
"""A module, what timm says of the model in it, and what `Network` must be told."""


def _classifier(name: str, spec: NetworkSpec, arguments: dict[str, Any]) -> Made:
    """The model as it is."""
    given = dict(arguments)
    apart = given.pop("distilled", False)
    module = _create(name, spec, given | ({"num_classes": spec.classes} if spec.classes else {}))
    said = _said(module)
    if apart:
        from stillroom.models._distilled import HEADS, add_distillation_token

        with argument_errors(name):
            module, said["classifier"] = add_distillation_token(module), HEADS
    return module, said, {"classes": spec.classes or 0, "head": _heads(module, said.get("classifier"))}


def _embedder(name: str, spec: NetworkSpec, arguments: dict[str, Any]) -> Made:
    """The model without its classifier."""
    model = _create(name, spec, arguments | {"num_classes": 0})
    said = _said(model)
    wears = {"classes": 0, "head": ("vector",), "prefix": "backbone.", "spare": _spare(said)}
    return Embedder(model), said, wears


def _segmenter(name: str, spec: NetworkSpec, arguments: dict[str, Any]) -> Made:
    """The model's maps, and a head that gives every place its class."""
    from stillroom.models._segmenter import segmenter

    return _around(segmenter, _words(segmenter), ("backbone",), name, spec, arguments)


def _detector(name: str, spec: NetworkSpec, arguments: dict[str, Any]) -> Made:
    """The model's maps, a pyramid of them, and what turns that into boxes."""
    from stillroom.models._detector import detector

    def make(model: nn.Module, classes: int, *, maps: int = 3, decoder: str = "fcos", **own: Any) -> nn.Module:
        return detector(as_backbone(model, maps=maps), decoder, replace(spec, classes=classes), **own)

    return _around(make, {"maps"} | _words(detector), ("backbone", "neck"), name, spec, arguments)


def _around(
    make: Callable[..., nn.Module],
    words: set[str],
    trunk: tuple[str, ...],
    name: str,
    spec: NetworkSpec,
    arguments: dict[str, Any],
) -> Made:
    """The model inside of what `make` builds on it, for which the arguments called `words` are."""
    ours = {word: value for word, value in arguments.items() if word in words}
    theirs = {word: value for word, value in arguments.items() if word not in words}
    model = _create(name, spec, theirs | {"num_classes": 0})
    said, before, classes = _said(model), list(model.state_dict()), spec.classes or 1
    with argument_errors(name):
        module = make(model, classes, **ours)
    wears = {
        "classes": classes,
        "head": tuple(getattr(module, "classifiers", ())),
        "trunk": trunk,
        "prefix": "backbone.",
        "spare": (*_spare(said), *removed_parts(before, model)),
    }
    return module, said, wears


def _words(make: Callable[..., nn.Module]) -> set[str]:
    """Arguments of the recipe that are meant for a maker of heads, and not for timm."""
    return set(inspect.signature(make).parameters) - {"model", "backbone", "classes", "facts"}


_MADE: dict[str, Callable[[str, NetworkSpec, dict[str, Any]], Made]] = {
    "classes": _classifier,
    "vector": _embedder,
    "pixels": _segmenter,
    "boxes": _detector,
}


def _create(name: str, spec: NetworkSpec, arguments: dict[str, Any]) -> nn.Module:
    import timm

    with (
        download_errors(name) if spec.pretrained else argument_errors(name),
        hub_offline_if_unreachable(spec.pretrained),
    ):
        return timm.create_model(
            name.removeprefix(PREFIX), pretrained=spec.pretrained, **arguments | {"in_chans": spec.channels}
        )


def _known(name: str, pretrained: bool) -> None:
    """Refuse a name that timm has not, and a tag or weights that the model has not."""
    import timm

    variant = name.removeprefix(PREFIX)
    base, _, tag = variant.partition(".")
    if not timm.is_model(base):
        raise UnknownModel(model=name, near=near(name, [PREFIX + known for known in timm.list_models()]))
    tags = timm.list_pretrained(f"{base}.*") + timm.list_pretrained(base)
    if (tag and variant not in tags) or (pretrained and not tags):
        problem = f"timm has no {variant!r}" if tags else "timm has none for this model"
        raise PretrainedWeightsNotFound(
            model=name, problem=problem, near=near(name, [PREFIX + known for known in tags])
        )


def _said(module: Any) -> dict[str, Any]:
    """What timm says of the model: its size, its classifier, how its weights want pixels."""
    return dict(module.pretrained_cfg)


def _heads(module: nn.Module, said: str | Sequence[str] | None) -> tuple[str, ...]:
    """The classifiers that the settings name and this model has: a plain DeiT has no `head_dist`."""
    parts = dict(module.named_modules())
    return tuple(name for name in _names(said) if name in parts and not isinstance(parts[name], nn.Identity))


def _spare(said: dict[str, Any]) -> tuple[str, ...]:
    """The classifiers that files of the model's weights have and a network without classes has not."""
    return _names(said.get("classifier"))


def _names(said: str | Sequence[str] | None) -> tuple[str, ...]:
    return (said,) if isinstance(said, str) else tuple(said or ())


def _side(arguments: dict[str, Any], said: dict[str, Any]) -> int | None:
    """H = W that the model was made for."""
    if given := arguments.get("img_size"):
        return int(given if isinstance(given, int) else given[-1])
    return int(said["input_size"][-1]) if said.get("input_size") else None

"""Any model of timm: `timm/mobilenetv4_conv_small`.

A tag selects certain weights: `timm/vit_tiny_patch16_224.augreg_in21k`.
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
from stillroom.models._family import NetworkSpec
from stillroom.models._library_errors import argument_errors, download_errors, hub_offline_if_unreachable
from stillroom.models._probe import resolve_input_size
from stillroom.models.network import IMAGENET, Network

PREFIX = "timm/"


class Timm:
    """timm's own arguments are passed on: `pad_type = "same"`, `drop_path_rate = 0.1`, `img_size = 64`.

    Some arguments are this program's own. `distilled = true` adds a distillation token to a ViT, see `_distilled`. For
    pixels and boxes, `decoder` names the head on the model's feature maps, `maps` is the number of maps that it uses,
    and the other arguments of `_segmenter.segmenter` or `_detector.detector` are passed to it.

    A model of fixed input size (most ViTs) keeps its own unless `img_size` is given; others take the data's size. Only
    names in timm's registry are built: `hf-hub:` and `local-dir:` names would load the configuration of third parties.
    """

    example = "timm/test_resnet"
    has_pixel_statistics = True

    def matches(self, name: str) -> bool:
        """See `Family.matches`."""
        return name.startswith(PREFIX)

    def names(self, like: str = "") -> list[str]:
        """See `Family.names`."""
        if not like:
            return [f"{PREFIX}NAME"]
        import timm

        return [PREFIX + name for name in timm.list_models() if like in PREFIX + name]

    def build(self, name: str, spec: NetworkSpec, **arguments: Any) -> Network:
        """See `Family.build`."""
        _check_name(name, spec.pretrained)
        module, config, properties = _BUILDERS[spec.output_kind](name, spec, arguments)
        pixels = spec.pixels(config.get("mean") or IMAGENET[0], config.get("std") or IMAGENET[1])
        network = Network(module, channels=spec.channels, output_kind=spec.output_kind, **pixels, **properties)
        return resolve_input_size(
            network, name, spec.size, own=_own_size(arguments, config), fixed=bool(config.get("fixed_input_size"))
        )


Built = tuple[nn.Module, dict[str, Any], dict[str, Any]]
"""A module, timm's `pretrained_cfg` of the model in it, and arguments of `Network`."""


def _classifier(name: str, spec: NetworkSpec, arguments: dict[str, Any]) -> Built:
    """The model itself."""
    arguments = dict(arguments)
    distilled = arguments.pop("distilled", False)
    module = _create(name, spec, arguments | ({"num_classes": spec.classes} if spec.classes else {}))
    config = _config(module)
    if distilled:
        from stillroom.models._distilled import HEADS, add_distillation_token

        with argument_errors(name):
            module, config["classifier"] = add_distillation_token(module), HEADS
    return module, config, {"classes": spec.classes or 0, "head": _heads(module, config.get("classifier"))}


def _embedder(name: str, spec: NetworkSpec, arguments: dict[str, Any]) -> Built:
    """The model without its classifier."""
    model = _create(name, spec, arguments | {"num_classes": 0})
    config = _config(model)
    properties = {"classes": 0, "head": ("vector",), "prefix": "backbone."}
    return Embedder(model), config, properties | {"removed_heads": _names(config.get("classifier"))}


def _segmenter(name: str, spec: NetworkSpec, arguments: dict[str, Any]) -> Built:
    """The model as a backbone with a segmentation decoder."""
    from stillroom.models._segmenter import segmenter

    return _with_head(segmenter, _parameters(segmenter), ("backbone",), name, spec, arguments)


def _detector(name: str, spec: NetworkSpec, arguments: dict[str, Any]) -> Built:
    """The model as a backbone with a feature pyramid and a detection head."""
    from stillroom.models._detector import detector

    def build(model: nn.Module, classes: int, *, maps: int = 3, decoder: str = "fcos", **others: Any) -> nn.Module:
        return detector(as_backbone(model, maps=maps), decoder, replace(spec, classes=classes), **others)

    return _with_head(build, {"maps"} | _parameters(detector), ("backbone", "neck"), name, spec, arguments)


def _with_head(
    build: Callable[..., nn.Module],
    parameters: set[str],
    trunk: tuple[str, ...],
    name: str,
    spec: NetworkSpec,
    arguments: dict[str, Any],
) -> Built:
    """The network that `build` makes of the model; `parameters` are the arguments for `build`, the others for timm."""
    for_head = {key: value for key, value in arguments.items() if key in parameters}
    for_timm = {key: value for key, value in arguments.items() if key not in parameters}
    model = _create(name, spec, for_timm | {"num_classes": 0})
    config, before, classes = _config(model), list(model.state_dict()), spec.classes or 1
    with argument_errors(name):
        module = build(model, classes, **for_head)
    properties = {
        "classes": classes,
        "head": tuple(getattr(module, "classifiers", ())),
        "trunk": trunk,
        "prefix": "backbone.",
        "removed_heads": (*_names(config.get("classifier")), *removed_parts(before, model)),
    }
    return module, config, properties


def _parameters(build: Callable[..., nn.Module]) -> set[str]:
    """The arguments of a recipe that belong to the function that builds a head."""
    return set(inspect.signature(build).parameters) - {"model", "backbone", "classes", "spec"}


_BUILDERS: dict[str, Callable[[str, NetworkSpec, dict[str, Any]], Built]] = {
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


def _check_name(name: str, pretrained: bool) -> None:
    """Check that timm has the model, and the model the tag and pretrained weights."""
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


def _config(model: Any) -> dict[str, Any]:
    """Timm's `pretrained_cfg` of the model: input size, classifier, normalisation."""
    return dict(model.pretrained_cfg)


def _heads(module: nn.Module, classifier: str | Sequence[str] | None) -> tuple[str, ...]:
    """The classifiers of the configuration that the model has: a plain DeiT has no `head_dist`."""
    parts = dict(module.named_modules())
    return tuple(name for name in _names(classifier) if name in parts and not isinstance(parts[name], nn.Identity))


def _names(classifier: str | Sequence[str] | None) -> tuple[str, ...]:
    return (classifier,) if isinstance(classifier, str) else tuple(classifier or ())


def _own_size(arguments: dict[str, Any], config: dict[str, Any]) -> int | None:
    """H = W that the model was built for."""
    if side := arguments.get("img_size"):
        return int(side if isinstance(side, int) else side[-1])
    return int(config["input_size"][-1]) if config.get("input_size") else None

"""User-defined models: `package.module:Name`, a class or function that returns an `nn.Module`."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from torch import nn

from stillroom.config.errors import ImportedNameFailed
from stillroom.config.plugins import pick
from stillroom.errors import StillroomError
from stillroom.models._errors import ModelImportFailed, PretrainedWeightsNotFound
from stillroom.models._family import NetworkSpec
from stillroom.models._library_errors import argument_errors
from stillroom.models._probe import last_classifier, resolve_input_size
from stillroom.models.network import IMAGENET, Network

MEANINGS = {
    "classes": ("classes", "num_classes", "n_classes", "num_labels"),
    "channels": ("channels", "in_channels", "in_chans", "num_channels"),
    "size": ("size", "img_size", "image_size"),
    "pretrained": ("pretrained",),
    "output_kind": ("output_kind",),
}
"""Field of `NetworkSpec` -> names of the parameter, if the user's code has one, to which its value is passed."""


class Module:
    """The arguments of the recipe are passed on; parameters listed in `MEANINGS` are filled in unless they are given.

    If a module has no parameter for channels and fails on grey images, these are repeated three times.
    """

    example = "stillroom.models.resnet:CifarResNet"
    has_pixel_statistics = False

    def matches(self, name: str) -> bool:
        """See `Family.matches`."""
        return ":" in name and not name.partition(":")[0].count("/")

    def names(self, like: str = "") -> list[str]:
        """See `Family.names`."""
        return [] if like else ["package.module:Name"]

    def build(self, name: str, spec: NetworkSpec, **arguments: Any) -> Network:
        """See `Family.build`."""
        try:
            constructor = pick("models", name)
        except ImportedNameFailed as problem:
            raise ModelImportFailed(model=name, problem=str(problem.__cause__ or problem)) from problem
        with argument_errors(name):
            all_arguments = _with_spec(constructor, spec, arguments)
            if spec.pretrained and "pretrained" not in all_arguments:
                raise PretrainedWeightsNotFound(model=name, problem="it has no parameter `pretrained`", near="")
            module = constructor(**all_arguments)
            if not isinstance(module, nn.Module):
                raise TypeError(f"it returned a {type(module).__name__}, not a torch.nn.Module")
        has_channels = bool(all_arguments.keys() & set(MEANINGS["channels"]))
        try:
            return _wrapped(module, name, spec)
        except StillroomError:
            if spec.channels != 1 or has_channels:
                raise
            return _wrapped(module, name, replace(spec, channels=3))


def _wrapped(module: nn.Module, name: str, spec: NetworkSpec) -> Network:
    mean, std = spec.mean or IMAGENET[0], spec.std or IMAGENET[1]
    network = Network(
        module, classes=spec.classes or 0, channels=spec.channels, mean=mean, std=std, output_kind=spec.output_kind
    )
    resolve_input_size(network, name, spec.size, own=None)
    network.head = last_classifier(module, network.classes)
    return network


def _with_spec(constructor: Any, spec: NetworkSpec, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments, and the values of the specification for which the signature has a parameter."""
    parameters = inspect.signature(constructor).parameters
    found = dict(arguments)
    for field, names in MEANINGS.items():
        value = getattr(spec, field)
        if value is None or value is False or arguments.keys() & set(names):
            continue
        if matching := [name for name in names if name in parameters]:
            found[matching[0]] = value
    return found

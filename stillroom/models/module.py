"""One's own model: `package.module:Name`, a class or function that answers with an `nn.Module`."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from torch import nn

from stillroom.config.errors import ImportedNameFailed
from stillroom.config.plugins import pick
from stillroom.errors import StillroomError
from stillroom.models._errors import ModelImportFailed, PretrainedWeightsNotFound
from stillroom.models._probe import argument_errors, last_classifier, resolve_input_size
from stillroom.models.network import IMAGENET, Network, NetworkSpec

MEANINGS = {
    "classes": ("classes", "num_classes", "n_classes", "num_labels"),
    "channels": ("channels", "in_channels", "in_chans", "num_channels"),
    "size": ("size", "img_size", "image_size"),
    "pretrained": ("pretrained",),
    "output_kind": ("output_kind",),
}
"""What this program knows about the data -> the parameters it is given as, where the user's code has one of them."""


class Module:
    """The arguments of the recipe pass through; those that `MEANINGS` lists are filled in unless they are given.

    A module that says nothing of channels and fails on grey images gets them repeated three times.
    """

    example = "stillroom.models.resnet:CifarResNet"
    has_pixel_statistics = False

    def matches(self, name: str) -> bool:
        """As `Family.knows`."""
        return ":" in name and not name.partition(":")[0].count("/")

    def names(self, like: str = "") -> list[str]:
        """As `Family.names`."""
        return [] if like else ["package.module:Name"]

    def build(self, name: str, spec: NetworkSpec, **arguments: Any) -> Network:
        """As `Family.build`."""
        try:
            make = pick("models", name)
        except ImportedNameFailed as problem:
            raise ModelImportFailed(model=name, problem=str(problem.__cause__ or problem)) from problem
        with argument_errors(name):
            filled = _filled(make, spec, arguments)
            if spec.pretrained and "pretrained" not in filled:
                raise PretrainedWeightsNotFound(model=name, problem="it takes no argument `pretrained`", near="")
            module = make(**filled)
            if not isinstance(module, nn.Module):
                raise TypeError(f"it made a {type(module).__name__}, not a torch.nn.Module")
        told = bool(filled.keys() & set(MEANINGS["channels"]))
        try:
            return _wrapped(module, name, spec)
        except StillroomError:
            if spec.channels != 1 or told:
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


def _filled(make: Any, spec: NetworkSpec, arguments: dict[str, Any]) -> dict[str, Any]:
    """The user's arguments, and those facts for which the signature has a parameter that they leave open."""
    parameters = inspect.signature(make).parameters
    found = dict(arguments)
    for fact, words in MEANINGS.items():
        value = getattr(spec, fact)
        if value is None or value is False or arguments.keys() & set(words):
            continue
        if taken := [word for word in words if word in parameters]:
            found[taken[0]] = value
    return found

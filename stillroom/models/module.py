"""One's own model: `package.module:Name`, a class or function that answers with an `nn.Module`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from stillroom.errors import Failure
from stillroom.models._probe import arguments_of, last_classifier, settled
from stillroom.models.network import IMAGENET, Network
from stillroom.plugins import pick

MEANINGS = {
    "classes": ("classes", "num_classes", "n_classes", "num_labels"),
    "channels": ("channels", "in_channels", "in_chans", "num_channels"),
    "size": ("size", "img_size", "image_size"),
    "pretrained": ("pretrained",),
}
"""What this program knows about the data -> the parameters it is given as, where the user's code has one of them."""


class Module:
    """The arguments of the recipe pass through; those that `MEANINGS` lists are filled in unless they are given.

    A module that says nothing of channels and fails on grey images gets them repeated three times.
    """

    example = "stillroom.models.resnet:CifarResNet"
    states_pixels = False

    def knows(self, name: str) -> bool:
        """As `Family.knows`."""
        return ":" in name and not name.partition(":")[0].count("/")

    def names(self, like: str = "") -> list[str]:
        """As `Family.names`."""
        return [] if like else ["package.module:Name"]

    def build(
        self,
        name: str,
        *,
        classes: int | None,
        channels: int,
        size: int,
        pretrained: bool,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        **arguments: Any,
    ) -> Network:
        """As `Family.build`."""
        try:
            make = pick("models", name)
        except LookupError as problem:
            raise Failure("SR-M309", model=name, problem=str(problem.__cause__ or problem)) from problem
        facts = {"classes": classes, "channels": channels, "size": size, "pretrained": pretrained or None}
        with arguments_of(name):
            filled = _filled(make, facts, arguments)
            if pretrained and "pretrained" not in filled:
                raise Failure("SR-M308", model=name, problem="it takes no argument `pretrained`", near="")
            module = make(**filled)
            if not isinstance(module, nn.Module):
                raise TypeError(f"it made a {type(module).__name__}, not a torch.nn.Module")
        told = bool(filled.keys() & set(MEANINGS["channels"]))
        return self._wrapped(module, name, classes, channels, size, mean, std, told)

    def _wrapped(
        self,
        module: nn.Module,
        name: str,
        classes: int | None,
        channels: int,
        size: int,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        told: bool,
    ) -> Network:
        mean, std = mean or IMAGENET[0], std or IMAGENET[1]
        network = Network(module, classes=classes or 0, channels=channels, mean=mean, std=std)
        try:
            settled(network, name, size, own=None)
        except Failure:
            if channels != 1 or told:
                raise
            network = Network(module, classes=classes or 0, channels=3, mean=mean, std=std)
            settled(network, name, size, own=None)
        network.head = last_classifier(module, network.classes)
        return network


def _filled(make: Any, facts: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """The user's arguments, and those facts for which the signature has a parameter that they leave open."""
    parameters = inspect.signature(make).parameters
    found = dict(arguments)
    for fact, value in facts.items():
        if value is None or arguments.keys() & set(MEANINGS[fact]):
            continue
        if taken := [word for word in MEANINGS[fact] if word in parameters]:
            found[taken[0]] = value
    return found

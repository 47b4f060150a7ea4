"""One's own model: `package.module:Name`, a class or function that answers with an `nn.Module`."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from torch import nn

from stillroom.config.plugins import pick
from stillroom.errors import StillroomError
from stillroom.models._errors import ModelImportFailed, PretrainedWeightsNotFound
from stillroom.models._probe import arguments_of, last_classifier, settled
from stillroom.models.network import IMAGENET, Facts, Network

MEANINGS = {
    "classes": ("classes", "num_classes", "n_classes", "num_labels"),
    "channels": ("channels", "in_channels", "in_chans", "num_channels"),
    "size": ("size", "img_size", "image_size"),
    "pretrained": ("pretrained",),
    "answers": ("answers",),
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

    def build(self, name: str, facts: Facts, **arguments: Any) -> Network:
        """As `Family.build`."""
        try:
            make = pick("models", name)
        except LookupError as problem:
            raise ModelImportFailed(model=name, problem=str(problem.__cause__ or problem)) from problem
        with arguments_of(name):
            filled = _filled(make, facts, arguments)
            if facts.pretrained and "pretrained" not in filled:
                raise PretrainedWeightsNotFound(model=name, problem="it takes no argument `pretrained`", near="")
            module = make(**filled)
            if not isinstance(module, nn.Module):
                raise TypeError(f"it made a {type(module).__name__}, not a torch.nn.Module")
        told = bool(filled.keys() & set(MEANINGS["channels"]))
        try:
            return _wrapped(module, name, facts)
        except StillroomError:
            if facts.channels != 1 or told:
                raise
            return _wrapped(module, name, replace(facts, channels=3))


def _wrapped(module: nn.Module, name: str, facts: Facts) -> Network:
    mean, std = facts.mean or IMAGENET[0], facts.std or IMAGENET[1]
    network = Network(
        module, classes=facts.classes or 0, channels=facts.channels, mean=mean, std=std, answers=facts.answers
    )
    settled(network, name, facts.size, own=None)
    network.head = last_classifier(module, network.classes)
    return network


def _filled(make: Any, facts: Facts, arguments: dict[str, Any]) -> dict[str, Any]:
    """The user's arguments, and those facts for which the signature has a parameter that they leave open."""
    parameters = inspect.signature(make).parameters
    found = dict(arguments)
    for fact, words in MEANINGS.items():
        value = getattr(facts, fact)
        if value is None or value is False or arguments.keys() & set(words):
            continue
        if taken := [word for word in words if word in parameters]:
            found[taken[0]] = value
    return found

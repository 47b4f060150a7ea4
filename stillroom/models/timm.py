"""Any model of timm: `timm/mobilenetv4_conv_small`.

With a tag where one wants certain weights: `timm/vit_tiny_patch16_224.augreg_in21k`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from torch import nn

from stillroom.errors import Failure
from stillroom.models._probe import arguments_of, fetching, settled
from stillroom.models.network import IMAGENET, Facts, Network
from stillroom.plugins import near

PREFIX = "timm/"


class Timm:
    """timm's own arguments pass through: `pad_type = "same"`, `drop_path_rate = 0.1`, `img_size = 64`.

    One argument is this program's: with `distilled = true` a ViT has a distillation token, see `_distilled`.

    A model of fixed size (most ViTs) keeps its own unless `img_size` is given; others take the data's size.
    Only names of timm's own registry are built: `hf-hub:` and `local-dir:` names fetch a stranger's settings.
    """

    example = "timm/test_resnet"
    states_pixels = True

    def knows(self, name: str) -> bool:
        """As `Family.knows`."""
        return name.startswith(PREFIX)

    def names(self, like: str = "") -> list[str]:
        """As `Family.names`."""
        if not like:
            return [f"{PREFIX}NAME"]
        import timm

        return [PREFIX + name for name in timm.list_models() if like in PREFIX + name]

    def build(self, name: str, facts: Facts, **arguments: Any) -> Network:
        """As `Family.build`."""
        import timm

        _known(name, facts.pretrained)
        apart = arguments.pop("distilled", False)
        given = arguments | {"in_chans": facts.channels} | ({"num_classes": facts.classes} if facts.classes else {})
        with fetching(name) if facts.pretrained else arguments_of(name), _hub(facts.pretrained):
            module = timm.create_model(name.removeprefix(PREFIX), pretrained=facts.pretrained, **given)
        said = _said(module)
        if apart:
            from stillroom.models._distilled import HEADS, distilled

            with arguments_of(name):
                module, said["classifier"] = distilled(module), HEADS
        mean, std = said.get("mean") or IMAGENET[0], said.get("std") or IMAGENET[1]
        if not facts.pretrained:
            mean, std = facts.mean or mean, facts.std or std
        network = Network(
            module,
            classes=facts.classes or 0,
            channels=facts.channels,
            mean=mean,
            std=std,
            head=_heads(module, said.get("classifier")),
        )
        return settled(network, name, facts.size, own=_side(arguments, said), fixed=bool(said.get("fixed_input_size")))


@contextmanager
def _hub(wanted: bool) -> Iterator[None]:
    """Tell the Hugging Face library that there is no network where its host has no address.

    It would find out by itself, in five attempts that take most of a minute; and offline it looks into its cache first.
    """
    import huggingface_hub.constants as constants

    before = constants.HF_HUB_OFFLINE
    try:
        if wanted and not before and not getproxies():  # a proxy may know addresses that this machine does not
            constants.HF_HUB_OFFLINE = not _resolves(urlsplit(constants.ENDPOINT).hostname)
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _resolves(host: str | None) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


def _known(name: str, pretrained: bool) -> None:
    """Refuse a name that timm has not, and a tag or weights that the model has not."""
    import timm

    variant = name.removeprefix(PREFIX)
    base, _, tag = variant.partition(".")
    if not timm.is_model(base):
        raise Failure("SR-M303", model=name, near=near(name, [PREFIX + known for known in timm.list_models()]))
    tags = timm.list_pretrained(f"{base}.*") + timm.list_pretrained(base)
    if (tag and variant not in tags) or (pretrained and not tags):
        problem = f"timm has no {variant!r}" if tags else "timm has none for this model"
        raise Failure("SR-M308", model=name, problem=problem, near=near(name, [PREFIX + known for known in tags]))


def _said(module: Any) -> dict[str, Any]:
    """What timm says of the model: its size, its classifier, how its weights want pixels."""
    return dict(module.pretrained_cfg)


def _heads(module: nn.Module, said: str | Sequence[str] | None) -> tuple[str, ...]:
    """The classifiers that the settings name and this model has: a plain DeiT has no `head_dist`."""
    names = (said,) if isinstance(said, str) else tuple(said or ())
    parts = dict(module.named_modules())
    return tuple(name for name in names if name in parts and not isinstance(parts[name], nn.Identity))


def _side(arguments: dict[str, Any], said: dict[str, Any]) -> int | None:
    """H = W that the model was made for."""
    if given := arguments.get("img_size"):
        return int(given if isinstance(given, int) else given[-1])
    return int(said["input_size"][-1]) if said.get("input_size") else None

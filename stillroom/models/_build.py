"""From a name in a recipe to a network: made new, fetched, or filled from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stillroom.config.plugins import choices, near, pick
from stillroom.models._errors import UnknownModel
from stillroom.models._load import apply_saved_edits, assign_weights
from stillroom.models._weights import read_weights, statistics_from_metadata
from stillroom.models.network import Family, FileFamily, HeadPolicy, Network, NetworkSpec
from stillroom.types import OutputKind


def create_model(
    name: str,
    *,
    classes: int | None,
    channels: int,
    size: int,
    pretrained: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    output_kind: OutputKind = "classes",
    **arguments: Any,
) -> Network:
    """A network without, or with the library's own, trained weights.

    Args:
        name: `resnet20`, `timm/NAME`, `torchvision/NAME`, `huggingface/NAME` or `package.module:Name`.
        classes: K. With `pretrained`, another K than the trained one means a new, untrained head. None: as many as
            the model has by itself, so that a trained head stays.
        channels: of the data, 1 or 3.
        size: side of the data's images, in pixels.
        pretrained: fetch the library's weights, if they are not on this machine.
        mean: of the data's pixels, for models that start from nothing; trained weights bring their own.
        std: as `mean`.
        output_kind: what it has to say; a classifier's name stands for its backbone, with the head that is needed.
        **arguments: go to the model as they are.

    Raises:
        StillroomError: SR-M303 no such model, SR-M304 wrong arguments, SR-M305 no logits come out, SR-M308 no trained
            weights, SR-M309 one's own code can't be imported, SR-N801 no network.
    """
    spec = NetworkSpec(
        classes=classes,
        channels=channels,
        size=size,
        pretrained=pretrained,
        mean=mean,
        std=std,
        output_kind=output_kind,
    )
    return find_family(name).build(name, spec, **arguments)


def restore(
    name: str,
    path: Path | str,
    *,
    classes: int | None,
    channels: int,
    size: int,
    head: HeadPolicy = "keep",
    trust: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    output_kind: OutputKind = "classes",
    **arguments: Any,
) -> Network:
    """A network with the weights of a file; or the network that a file holds, where the family is an `Opener`.

    Pixels are normalised as the file's metadata says; else as the library says of its trained weights; else with
    `mean` and `std`. Weights that were trained on colour make a network that repeats grey images three times.

    Args:
        name: as for `build`.
        path: safetensors, or a state dict that `torch.load(weights_only=True)` takes.
        classes: K of the data; None: as many as the file has.
        channels: as for `build`.
        size: as for `build`.
        head: "keep": the file's classifier must have K outputs. "any": likewise, but a backbone's file will do for a
            network around one. "replace": the classifier is left out, and the network's is new.
        trust: `sha256:...` of a pickle that may run its code.
        mean: as for `build`.
        std: as for `build`.
        output_kind: as for `build`. The file may be a classifier's where the network is built on its backbone: then the
            backbone is filled, the file's classifier is left out, and the rest of the network begins with nothing.
        **arguments: as for `build`.

    Raises:
        StillroomError: as `build`, `load` and `fill`.
    """
    family = find_family(name)
    if isinstance(family, FileFamily):
        spec = NetworkSpec(classes=classes, channels=channels, size=size, output_kind=output_kind)
        return family.open(Path(path), spec, head=head, trust=trust, **arguments)
    state, said = read_weights(path, trust=trust)
    pixels = statistics_from_metadata(said) or ((None, None) if family.has_pixel_statistics else (mean, std))
    spec = NetworkSpec(
        classes=classes, channels=channels, size=size, mean=pixels[0], std=pixels[1], output_kind=output_kind
    )
    network = family.build(name, spec, **arguments)
    theirs = (_outputs(network, state) if classes is None else None) or network.classes
    seen = _channels(network, state)
    if (theirs, seen) != (network.classes, network.channels):
        spec = replace(spec, classes=theirs if classes is None else classes, channels=seen)
        network = family.build(name, spec, **arguments)
    apply_saved_edits(network, said, Path(path).name)
    assign_weights(network, state, head=head, name=Path(path).name)
    if said.get("size", "").isdigit():
        network.size = int(said["size"])
    return network


def find_family(name: str) -> Family:
    """The family that a name is meant for.

    Raises:
        UnknownModel: SR-M303.
    """
    for family in families():
        if family.matches(name):
            return family
    raise UnknownModel(model=name, near=_elsewhere(name) or near(name, list_models()))


def families() -> list[Family]:
    """One of each file in this folder. Importing them imports no library."""
    return [pick("models", choice)() for choice in choices("models")]


def list_models(like: str = "") -> list[str]:
    """What a recipe may name, if it contains `like`; without `like` a short list: `timm/NAME` is all of timm."""
    return [name for family in families() for name in family.names(like)]


def _elsewhere(name: str) -> str:
    """`resnet50` and `mobilenetv2_100` are names that a library has: say which."""
    found = [known for known in list_models(f"/{name}") if known.endswith(f"/{name}")]
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""


def _outputs(network: Network, state: dict[str, Tensor]) -> int | None:
    weights = [state.get(f"{name}.weight") for name in network.head]
    return len(weights[0]) if weights and weights[0] is not None else None


def _channels(network: Network, state: dict[str, Tensor]) -> int:
    """How many channels the file's first convolution reads: 1 or 3; else as many as the network's."""
    for name, part in network.module.named_modules():
        if isinstance(part, nn.Conv2d):
            weight = state.get(f"{name}.weight", state.get(f"{name.removeprefix(network.prefix)}.weight"))
            if weight is None or weight.ndim != 4 or part.in_channels != network.channels:
                return network.channels
            return weight.shape[1] if weight.shape[1] in (1, 3) else network.channels
    return network.channels

"""From a name in a recipe to a network: new, with pretrained weights, or with the weights of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stillroom.config.plugins import choices, near, pick
from stillroom.models._errors import UnknownModel
from stillroom.models._family import Family, FileFamily, HeadPolicy, NetworkSpec
from stillroom.models._load import apply_saved_edits, assign_weights
from stillroom.models._weights import read_weights, statistics_from_metadata
from stillroom.models.network import Network
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
    """A new network, or one with the library's pretrained weights.

    Args:
        name: `resnet20`, `timm/NAME`, `torchvision/NAME`, `huggingface/NAME` or `package.module:Name`.
        classes: K. With `pretrained`, a K other than that of the pretrained head means a new head. None for the model's
            own number, which keeps a pretrained head.
        channels: of the data, 1 or 3.
        size: side of the data's images, in pixels.
        pretrained: load the library's weights, downloading them if necessary.
        mean: of the data's pixels, for models that are trained from scratch; pretrained weights have their own.
        std: standard deviation, likewise.
        output_kind: of the network; the name of a classifier stands for its backbone with a suitable head.
        **arguments: passed to the model.

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
    """A network with the weights of a file, or, for a `FileFamily`, the network that the file contains.

    The normalisation of pixels comes from the file's metadata, else from the library if it states one, else from `mean`
    and `std`. If the weights are for colour images, the network repeats grey images three times.

    Args:
        name: as in `create_model`.
        path: safetensors, or a state dict that `torch.load(weights_only=True)` accepts.
        classes: K of the data; None for the file's number.
        channels: as in `create_model`.
        size: as in `create_model`.
        head: "keep": the file's classifier must have K outputs. "any": likewise, but for a network around a backbone
            the file may contain the backbone only. "replace": the file's classifier is ignored, and the network's is
            new.
        trust: `sha256:...` of a pickle that is allowed to run code.
        mean: as in `create_model`.
        std: as in `create_model`.
        output_kind: as in `create_model`. For a network around a backbone the file may be a classifier's: its backbone
            is loaded, its classifier is ignored, and the rest of the network is new.
        **arguments: as in `create_model`.

    Raises:
        StillroomError: as `create_model`, `read_weights` and `assign_weights`.
    """
    family = find_family(name)
    if isinstance(family, FileFamily):
        spec = NetworkSpec(classes=classes, channels=channels, size=size, output_kind=output_kind)
        return family.open(Path(path), spec, head=head, trust=trust, **arguments)
    state, metadata = read_weights(path, trust=trust)
    pixels = statistics_from_metadata(metadata) or ((None, None) if family.has_pixel_statistics else (mean, std))
    spec = NetworkSpec(
        classes=classes, channels=channels, size=size, mean=pixels[0], std=pixels[1], output_kind=output_kind
    )
    network = family.build(name, spec, **arguments)
    file_classes = (_outputs(network, state) if classes is None else None) or network.classes
    file_channels = _channels(network, state)
    if (file_classes, file_channels) != (network.classes, network.channels):
        spec = replace(spec, classes=file_classes if classes is None else classes, channels=file_channels)
        network = family.build(name, spec, **arguments)
    apply_saved_edits(network, metadata, Path(path).name)
    assign_weights(network, state, head=head, name=Path(path).name)
    if metadata.get("size", "").isdigit():
        network.size = int(metadata["size"])
    return network


def find_family(name: str) -> Family:
    """The family that a name belongs to.

    Raises:
        UnknownModel: SR-M303.
    """
    for family in families():
        if family.matches(name):
            return family
    raise UnknownModel(model=name, near=_elsewhere(name) or near(name, list_models()))


def families() -> list[Family]:
    """An instance of every family. Creating them imports no library."""
    return [pick("models", choice)() for choice in choices("models")]


def list_models(like: str = "") -> list[str]:
    """Names that contain `like`; without `like` a short list, in which `timm/NAME` stands for all of timm."""
    return [name for family in families() for name in family.names(like)]


def _elsewhere(name: str) -> str:
    """A hint if a name without prefix, such as `resnet50`, exists in a library."""
    found = [full for full in list_models(f"/{name}") if full.endswith(f"/{name}")]
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""


def _outputs(network: Network, state: dict[str, Tensor]) -> int | None:
    weights = [state.get(f"{name}.weight") for name in network.head]
    return len(weights[0]) if weights and weights[0] is not None else None


def _channels(network: Network, state: dict[str, Tensor]) -> int:
    """Input channels of the file's first convolution if they are 1 or 3, else the network's."""
    for name, part in network.module.named_modules():
        if isinstance(part, nn.Conv2d):
            weight = state.get(f"{name}.weight", state.get(f"{name.removeprefix(network.prefix)}.weight"))
            if weight is None or weight.ndim != 4 or part.in_channels != network.channels:
                return network.channels
            return weight.shape[1] if weight.shape[1] in (1, 3) else network.channels
    return network.channels

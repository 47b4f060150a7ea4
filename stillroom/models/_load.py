"""Loading a file into a network: the structural edits in its metadata, and its weights, strictly by name."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from stillroom.models import surgery
from stillroom.models._errors import ClassCountMismatch
from stillroom.models._family import HeadPolicy
from stillroom.models._weights import Metadata, one_line, read_weights
from stillroom.models._weights_errors import BackboneOnlyWeights, SurgeryMismatch, WeightsMismatch
from stillroom.models.network import Network


def assign_weights(
    network: Network, state: dict[str, Tensor], *, head: HeadPolicy = "keep", name: str = "weights"
) -> None:
    """Load a state dict into a network; all names and shapes must match.

    Only `num_batches_tracked` may be missing, because old files lack these counters and they are not used. A network
    around a backbone also accepts the weights of the backbone's own model: their classifier is ignored, and the rest of
    the network stays as it is.

    Args:
        network: modified in place.
        state: by the names of the wrapped module.
        head: "keep": the state must contain the whole network; "any": it may be of the backbone only, and everything
            else stays as it is; "replace": likewise, and the network's classifier stays as it is in any case.
        name: of the file, for error messages.

    Raises:
        StillroomError: SR-M301 another number of classes; SR-M311 names or shapes do not match; SR-M316 only a
            backbone.
    """
    own = network.weights()
    if network.removed_heads and not any(network.prefix and key.startswith(network.prefix) for key in state):
        if head == "keep" and any(not key.startswith(network.prefix) for key in own):
            raise BackboneOnlyWeights(file=name, output_kind=network.output_kind)
        state = _with_backbone(network, own, state)
    heads = tuple(f"{part}." for part in network.head)
    if head == "replace":
        state = {key: value for key, value in state.items() if not key.startswith(heads)}
        state |= {key: value for key, value in own.items() if key.startswith(heads)}
    for key in (f"{part}weight" for part in heads):
        if key in state and state[key].ndim and len(state[key]) != len(own[key]):
            raise ClassCountMismatch(name=name, theirs=len(state[key]), classes=network.classes)
    optional = {key: own[key] for key in own.keys() - state.keys() if key.endswith("num_batches_tracked")}
    state = state | optional
    if problem := _mismatch(own, state):
        raise WeightsMismatch(file=name, problem=problem)
    network.module.load_state_dict(state, strict=True)


def apply_saved_edits(network: Network, metadata: Metadata, name: str = "weights") -> None:
    """Apply the structural edits in a file's metadata to a network, so that the file's weights fit.

    Raises:
        SurgeryMismatch: SR-M317 they do not fit: the file is of another network, or from a newer version.
    """
    try:
        edits, own = surgery.from_metadata(metadata), surgery.structural(network.edits)
        wanted = surgery.structural(edits)
        if wanted[: len(own)] != own:
            raise ValueError("the network was modified in another way before")
        network.apply_edits(wanted[len(own) :])
        network.edits = edits
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as problem:
        raise SurgeryMismatch(file=name, problem=one_line(problem)) from problem


def load_weights(network: Network, path: Path) -> Network:
    """Apply the edits and load the weights of a file into a network as built by its family; returns the network.

    Raises:
        StillroomError: as `read_weights`, `apply_saved_edits` and `assign_weights`.
    """
    state, metadata = read_weights(path)
    apply_saved_edits(network, metadata, path.name)
    assign_weights(network, state, name=path.name)
    return network


def _with_backbone(network: Network, own: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's own state with its backbone replaced by the state of the backbone's own model."""
    removed = tuple(f"{name}." for name in network.removed_heads)
    backbone = {network.prefix + key: value for key, value in state.items() if not key.startswith(removed)}
    return {key: value for key, value in own.items() if not key.startswith(network.prefix)} | backbone


def _mismatch(own: dict[str, Tensor], state: dict[str, Tensor]) -> str:
    """The missing, unexpected and differently shaped names, at most five of each; "" if all match."""
    shapes = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    kinds = {"missing": [k for k in own if k not in state], "unexpected": [k for k in state if k not in own]}
    parts = [_first_five(kind, names) for kind, names in (kinds | {"of another shape": shapes}).items() if names]
    return "; ".join(parts)


def _first_five(kind: str, names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{len(names)} {kind}: {', '.join(names[:5])}{more}"

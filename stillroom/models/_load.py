"""The weights of a file in a network: every name must fit, and the form that the file's metadata describe."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from stillroom.models import surgery
from stillroom.models._errors import ClassCountMismatch
from stillroom.models._weights import Metadata, one_line, read_weights
from stillroom.models._weights_errors import BackboneOnlyWeights, SurgeryMismatch, WeightsMismatch
from stillroom.models.network import HeadPolicy, Network


def assign_weights(
    network: Network, state: dict[str, Tensor], *, head: HeadPolicy = "keep", name: str = "weights"
) -> None:
    """Put a state dict into a network: every name must fit, with its shape.

    Only `num_batches_tracked` may be missing: old files lack these counters, and nothing reads them. A network around a
    backbone also takes the backbone's own file: its classifier is left out, and what is around the backbone stays new.

    Args:
        network: filled in place.
        state: the wrapped module's own names.
        head: "keep": what turns features into answers is part of it; "any": it may be a backbone's file, around which
            everything stays as it is; "replace": it may, and the network's own classifier stays as it is too.
        name: of the file, for messages.

    Raises:
        StillroomError: SR-M301 the classifier has another number of outputs; SR-M311 names or shapes do not fit;
            SR-M316 it is a backbone's file.
    """
    own = network.weights()
    if network.removed_heads and not any(network.prefix and key.startswith(network.prefix) for key in state):
        if head == "keep" and any(not key.startswith(network.prefix) for key in own):
            raise BackboneOnlyWeights(file=name, output_kind=network.output_kind)
        state = _around(network, own, state)
    heads = tuple(f"{part}." for part in network.head)
    if head == "replace":
        state = {key: value for key, value in state.items() if not key.startswith(heads)}
        state |= {key: value for key, value in own.items() if key.startswith(heads)}
    for key in (f"{part}weight" for part in heads):
        if key in state and state[key].ndim and len(state[key]) != len(own[key]):
            raise ClassCountMismatch(name=name, theirs=len(state[key]), classes=network.classes)
    optional = {key: own[key] for key in own.keys() - state.keys() if key.endswith("num_batches_tracked")}
    state = state | optional
    if problem := _misfit(own, state):
        raise WeightsMismatch(file=name, problem=problem)
    network.module.load_state_dict(state, strict=True)


def apply_saved_edits(network: Network, said: Metadata, name: str = "weights") -> None:
    """Give a network the form that a file's metadata tell of, so that the file's weights fit.

    Raises:
        SurgeryMismatch: SR-M317 it can't have that form: the file is another network's, or a newer program's.
    """
    try:
        edits, own = surgery.from_metadata(said), surgery.structural(network.edits)
        wanted = surgery.structural(edits)
        if wanted[: len(own)] != own:
            raise ValueError("the network here was changed in another way already")
        network.apply_edits(wanted[len(own) :])
        network.edits = edits
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as problem:
        raise SurgeryMismatch(file=name, problem=one_line(problem)) from problem


def load_weights(network: Network, path: Path) -> Network:
    """A network that is as its family builds it, with the form and the weights of a file; the same, for chaining.

    Raises:
        StillroomError: as `load`, `reformed` and `fill`.
    """
    state, said = read_weights(path)
    apply_saved_edits(network, said, path.name)
    assign_weights(network, state, name=path.name)
    return network


def _around(network: Network, own: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A backbone's own file as a file of the network around it."""
    spare = tuple(f"{name}." for name in network.removed_heads)
    inside = {network.prefix + key: value for key, value in state.items() if not key.startswith(spare)}
    return {key: value for key, value in own.items() if not key.startswith(network.prefix)} | inside


def _misfit(own: dict[str, Tensor], state: dict[str, Tensor]) -> str:
    """What does not fit, at most five names of each kind, and how many there are; "" when all does."""
    shapes = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    kinds = {"missing": [k for k in own if k not in state], "unexpected": [k for k in state if k not in own]}
    parts = [_some(kind, found) for kind, found in (kinds | {"of another shape": shapes}).items() if found]
    return "; ".join(parts)


def _some(kind: str, found: list[str]) -> str:
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return f"{len(found)} {kind}: {', '.join(found[:5])}{more}"

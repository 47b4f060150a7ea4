"""A network that no longer changes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from stillroom.types import Output, at_least_float32


class FrozenTeacher:
    """Dropout and batch norm stay in inference mode for good, and no gradient is kept.

    It computes in its own precision, whatever the caller computes in, and what it says is float32: an answer is the
    same wherever it is asked for. The images may be on another device than the network, and the answers then are too.

    Args:
        network: pixels -> Output.
        map: for every class of the data, which of the network's outputs means it; None when they are the same.
        precision: of its arithmetic; torch's autocast says which operations are done in half of it.
        spread: a copy of the network, its weights spread over processes, that answers in its place; all processes must
            then ask equally often. None: the network answers, to each process by itself.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        map: Sequence[int] | None = None,
        precision: torch.dtype = torch.float32,
        spread: nn.Module | None = None,
    ):
        self.network, self.spread = network.eval().requires_grad_(False), spread
        self.map = None if map is None else torch.tensor(map)
        self.precision = precision

    @property
    def alone(self) -> FrozenTeacher:
        """The same, with the whole network answering: what a process may ask while the others do something else."""
        one = copy.copy(self)
        one.spread = None
        return one

    @torch.no_grad()
    def __call__(self, views: tuple[Tensor, ...], keys: Tensor, taps: tuple[str, ...]) -> Output:
        """What the network says of each view, joined along the batch."""
        network, there = self.network if self.spread is None else self.spread, views[0].device
        here = next(chain(network.buffers(), network.parameters()), views[0]).device
        # In float32 the block is there all the same: it ends the autocast of whoever asks.
        with torch.autocast(here.type, self.precision, enabled=self.precision != torch.float32):
            said = join([network(images.to(here), taps) for images in views])
        answers = getattr(self.network, "output_kind", "classes")
        return Output(
            pred=mapped(at_least_float32(said.pred), self.map, answers).to(there),
            taps={name: at_least_float32(value).to(there) for name, value in said.taps.items()},
        )

    def predict(self, images: Tensor, taps: tuple[str, ...] = ()) -> Output:
        """The output for [B, C, H, W] images, called as any network is."""
        return self((images,), torch.empty(0, dtype=torch.int64), taps)

    def update(self, learner: nn.Module, step: int) -> None:
        """Nothing: it is frozen."""


def mapped(pred: Tensor, map: Tensor | None, output_kind: str) -> Tensor:
    """A prediction in the data's classes: of each of them the output that means it, as `map` says."""
    if map is None:
        return pred
    chosen = map.to(pred.device)
    if output_kind == "boxes":  # behind the four sides of the box
        return torch.cat([pred[..., :4], pred[..., 4 + chosen]], -1)
    return pred[:, chosen]


def join(outputs: list[Output]) -> Output:
    """Outputs of several views as one: preds and taps joined along the batch."""
    if len(outputs) == 1:
        return outputs[0]
    taps = {name: torch.cat([output.taps[name] for output in outputs]) for name in outputs[0].taps}
    return Output(pred=torch.cat([output.pred for output in outputs]), taps=taps)

"""A network that no longer changes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from stillroom.types import Output, at_least_float32


class FrozenTeacher:
    """Dropout and batch norm stay in evaluation mode, and no gradient is kept.

    It computes in its own precision, whatever autocast the caller is in, and its outputs are float32, so that they are
    the same wherever they are computed. Images on another device are moved there, and the outputs back.

    Args:
        network: pixels -> Output.
        map: for every class of the data, the index of the network's output for it; None where they are in one order.
        precision: of its arithmetic; torch's autocast says which operations are done in half of it.
        spread: a copy of the network with its weights sharded over processes, which is run in its place; all processes
            must then call it equally often. None: each process runs the network by itself.
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
        """The same with the unsharded network: may be called by one process alone."""
        one = copy.copy(self)
        one.spread = None
        return one

    @torch.no_grad()
    def __call__(self, views: tuple[Tensor, ...], keys: Tensor, taps: tuple[str, ...]) -> Output:
        """The outputs for each view, joined along the batch."""
        network, device = self.network if self.spread is None else self.spread, views[0].device
        own = next(chain(network.buffers(), network.parameters()), views[0]).device
        # In float32 too: the block ends the autocast of the caller.
        with torch.autocast(own.type, self.precision, enabled=self.precision != torch.float32):
            output = join([network(images.to(own), taps) for images in views])
        answers = getattr(self.network, "output_kind", "classes")
        return Output(
            pred=mapped(at_least_float32(output.pred), self.map, answers).to(device),
            taps={name: at_least_float32(value).to(device) for name, value in output.taps.items()},
        )

    def predict(self, images: Tensor, taps: tuple[str, ...] = ()) -> Output:
        """The output for [B, C, H, W] images, called as any network is."""
        return self((images,), torch.empty(0, dtype=torch.int64), taps)

    def update(self, learner: nn.Module, step: int) -> None:
        """Does nothing: it is frozen."""


def mapped(pred: Tensor, map: Tensor | None, output_kind: str) -> Tensor:
    """A prediction in the order of the data's classes: `map[k]` is the output for class k."""
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

"""A network that no longer changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from stillroom.types import Output


class Frozen:
    """Dropout and batch norm stay in inference mode for good, and no gradient is kept.

    Args:
        network: pixels -> Output.
        map: for every class of the data, which of the network's outputs means it; None when they are the same.
    """

    def __init__(self, network: nn.Module, *, map: Sequence[int] | None = None):
        self.network = network.eval().requires_grad_(False)
        self.map = None if map is None else torch.tensor(map)

    @torch.no_grad()
    def __call__(self, views: tuple[Tensor, ...], keys: Tensor, taps: tuple[str, ...]) -> Output:
        """What the network says of each view, joined along the batch."""
        return self._mapped(join([self.network(images, taps) for images in views]))

    def speak(self, images: Tensor) -> Output:
        """What it says of [B, C, H, W] images, for those who judge it as they judge any network."""
        return self((images,), torch.empty(0, dtype=torch.int64), ())

    def update(self, learner: nn.Module, step: int) -> None:
        """Nothing: it is frozen."""

    def _mapped(self, output: Output) -> Output:
        if self.map is None:
            return output
        chosen = self.map.to(output.pred.device)
        if getattr(self.network, "answers", "classes") == "boxes":  # behind the four sides of the box
            return replace(output, pred=torch.cat([output.pred[..., :4], output.pred[..., 4 + chosen]], -1))
        return replace(output, pred=output.pred[:, chosen])


def join(outputs: list[Output]) -> Output:
    """Outputs of several views as one: preds and taps joined along the batch."""
    if len(outputs) == 1:
        return outputs[0]
    taps = {name: torch.cat([output.taps[name] for output in outputs]) for name in outputs[0].taps}
    return Output(pred=torch.cat([output.pred for output in outputs]), taps=taps)

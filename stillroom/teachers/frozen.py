"""A network that no longer changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stillroom.types import Output


class Frozen:
    """Dropout and batch norm stay in inference mode for good, and no gradient is kept.

    It computes in its own precision, whatever the caller computes in, and what it says is float32: an answer is the
    same wherever it is asked for.

    Args:
        network: pixels -> Output.
        map: for every class of the data, which of the network's outputs means it; None when they are the same.
        precision: of its arithmetic; torch's autocast says which operations are done in half of it.
    """

    def __init__(self, network: nn.Module, *, map: Sequence[int] | None = None, precision: torch.dtype = torch.float32):
        self.network = network.eval().requires_grad_(False)
        self.map = None if map is None else torch.tensor(map)
        self.precision = precision

    @torch.no_grad()
    def __call__(self, views: tuple[Tensor, ...], keys: Tensor, taps: tuple[str, ...]) -> Output:
        """What the network says of each view, joined along the batch."""
        # In float32 the block is there all the same: it ends the autocast of whoever asks.
        with torch.autocast(views[0].device.type, self.precision, enabled=self.precision != torch.float32):
            said = join([self.network(images, taps) for images in views])
        answers = getattr(self.network, "answers", "classes")
        return Output(
            pred=mapped(whole(said.pred), self.map, answers),
            taps={name: whole(value) for name, value in said.taps.items()},
        )

    def speak(self, images: Tensor) -> Output:
        """What it says of [B, C, H, W] images, for those who judge it as they judge any network."""
        return self((images,), torch.empty(0, dtype=torch.int64), ())

    def update(self, learner: nn.Module, step: int) -> None:
        """Nothing: it is frozen."""


def mapped(pred: Tensor, map: Tensor | None, answers: str) -> Tensor:
    """A prediction in the data's classes: of each of them the output that means it, as `map` says."""
    if map is None:
        return pred
    chosen = map.to(pred.device)
    if answers == "boxes":  # behind the four sides of the box
        return torch.cat([pred[..., :4], pred[..., 4 + chosen]], -1)
    return pred[:, chosen]


def whole(x: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def join(outputs: list[Output]) -> Output:
    """Outputs of several views as one: preds and taps joined along the batch."""
    if len(outputs) == 1:
        return outputs[0]
    taps = {name: torch.cat([output.taps[name] for output in outputs]) for name in outputs[0].taps}
    return Output(pred=torch.cat([output.pred for output in outputs]), taps=taps)

"""Networks on batches of images: the one loop that every evaluation is built on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch

from stillroom.models._inference import eval_mode
from stillroom.types import Batch, Output, PredictFn


def predict(
    networks: Mapping[str, PredictFn], batches: Iterable[Batch], device: torch.device | str
) -> Iterator[tuple[Batch, dict[str, Output]]]:
    """Each batch, as it came, with the output of every network for it, on the CPU in float32.

    Modules are in evaluation mode while the loop runs, and back in theirs after it.

    Args:
        networks: name -> images [B, C, H, W] to `Output`.
        batches: each is read once.
        device: where the networks are.
    """
    with eval_mode(networks.values()):
        for batch in batches:
            images = batch.images.to(device)
            # Inference mode ends before the outputs leave, and they are copied out of it: its tensors can't be trained
            # on, and callers may keep what they make of them, such as a split decoded on first use.
            with torch.inference_mode():
                found = {name: network(images) for name, network in networks.items()}
                found = {name: _on_cpu(output) for name, output in found.items()}
            yield batch, {name: _copied(output) for name, output in found.items()}


def _on_cpu(output: Output) -> Output:
    return Output(pred=output.pred.float().cpu(), taps={n: v.float().cpu() for n, v in output.taps.items()})


def _copied(output: Output) -> Output:
    return Output(pred=output.pred.clone(), taps={n: v.clone() for n, v in output.taps.items()})

"""Networks x batches x metrics -> figures. One pass serves everybody, so that the test split is read once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from stillroom.metrics._figure import Figure
from stillroom.metrics.metric import Metric, decide
from stillroom.types import Batch, Output

Speaker = Callable[[Tensor], Output]
"""Anything that says something about images [B, C, H, W] in 0..1: a network, or an exported file that was loaded."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one pass over N images brought. The i-th entry everywhere belongs to the same image.

    Attributes:
        figures: speaker -> name -> figure.
        predictions: speaker -> [N] int64, the class it named, -1 where its logits were not finite.
        targets: [N] int64 labels.
        keys: [N] int64 keys of the images, in the order in which they came.
        logits: speaker -> [N, K] float32, for the speakers whose logits were asked for.
    """

    figures: dict[str, dict[str, Figure]]
    predictions: dict[str, Tensor]
    targets: Tensor
    keys: Tensor
    logits: dict[str, Tensor] = field(default_factory=dict)


def evaluate(
    speakers: Mapping[str, Speaker],
    batches: Iterable[Batch],
    metrics: Callable[[], list[Metric]],
    *,
    teacher: str | None = None,
    keep: Callable[[str, Batch, Output], None] | None = None,
    logits: Collection[str] = (),
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Show every batch to every speaker, once, and count.

    Args:
        speakers: name -> network. Modules are put into evaluation mode for the pass and back into theirs after it.
        batches: images with labels; each is read once.
        metrics: makes a fresh list of metrics; every speaker gets its own.
        teacher: the speaker with whom the others are compared; it is not compared with itself.
        keep: called with (speaker, batch, output) after each batch, all on the CPU, for instance to save samples.
        logits: speakers whose logits are wanted; the others' are let go, for they may be large.
        device: where the images are shown.

    Raises:
        ValueError: `teacher` or one of `logits` is no speaker, or there is no image.
    """
    for name in {*logits} | ({teacher} if teacher else set()):
        if name not in speakers:
            raise ValueError(f"{name!r} is none of the speakers: {', '.join(speakers)}")
    counts = {name: metrics() for name in speakers}
    said: dict[str, list[Tensor]] = {name: [] for name in speakers}
    kept: dict[str, list[Tensor]] = {name: [] for name in logits}
    targets, keys = [], []
    with at_rest(speakers.values()):
        for batch in batches:
            outputs = _listen(speakers, batch.images.to(device))
            targets.append(batch.target)
            keys.append(batch.keys)
            for name, output in outputs.items():
                judge = outputs[teacher] if teacher and name != teacher else None
                for metric in counts[name]:
                    metric.update(output, batch, judge)
                said[name].append(decide(output.pred))
                if name in kept:
                    kept[name].append(output.pred)
                if keep:
                    keep(name, batch, output)
    if not targets:
        raise ValueError("there is no image to evaluate on")
    return Evaluation(
        figures={name: _figures(list_) for name, list_ in counts.items()},
        predictions={name: torch.cat(parts) for name, parts in said.items()},
        targets=torch.cat(targets),
        keys=torch.cat(keys),
        logits={name: torch.cat(parts) for name, parts in kept.items()},
    )


def _listen(speakers: Mapping[str, Speaker], images: Tensor) -> dict[str, Output]:
    """Every speaker's answer, on the CPU in float32.

    Inference mode ends here and the answers are copied out of it: tensors born in it may never be trained on, and
    whoever reads the batches may keep what it makes, such as a split decoded on first use.
    """
    with torch.inference_mode():
        answers = {name: speaker(images).pred.float().cpu() for name, speaker in speakers.items()}
    return {name: Output(pred=answer.clone()) for name, answer in answers.items()}


def _figures(metrics: list[Metric]) -> dict[str, Figure]:
    return {name: figure for metric in metrics for name, figure in metric.compute().items()}


@contextmanager
def at_rest(speakers: Iterable[object]) -> Iterator[None]:
    """Evaluation mode for all modules, then each part's own mode again: a frozen part must not wake up in training."""
    modules = [part for speaker in speakers if isinstance(speaker, nn.Module) for part in speaker.modules()]
    modes = [part.training for part in modules]
    try:
        for part in modules:
            part.training = False
        yield
    finally:
        for part, mode in zip(modules, modes, strict=True):
            part.training = mode

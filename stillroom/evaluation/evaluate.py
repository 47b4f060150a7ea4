"""Networks x batches x metrics -> figures. One pass serves everybody, so that the test split is read once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stillroom.metrics.measurement import Measurement
from stillroom.metrics.metric import Metric
from stillroom.models._inference import eval_mode
from stillroom.tasks.task import Task
from stillroom.types import Batch, Output

PredictFn = Callable[[Tensor], Output]
"""Anything that answers images [B, C, H, W] in 0..1: an `Predictor` network, or an exported file that was loaded."""

SMALL = 4096  # numbers an image, up to which predictions are kept


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one pass over N images brought. The i-th entry everywhere belongs to the same image.

    Attributes:
        figures: speaker -> name -> figure.
        predictions: speaker -> [N, ...], what the task's `decode` makes of its answers, where that is small.
        scores: speaker -> [N] in 0..1, how right each answer is.
        targets: [N] int64 labels; None where an image's target is not one number.
        keys: [N] int64 keys of the images, in the order in which they came.
    """

    figures: dict[str, dict[str, Measurement]]
    predictions: dict[str, Tensor]
    scores: dict[str, Tensor]
    targets: Tensor | None
    keys: Tensor


class _Tally:
    """What is known of one speaker so far."""

    def __init__(self, task: Task, metrics: list[Metric]):
        self.task, self.metrics = task, metrics
        self.predictions: list[Tensor] = []
        self.scores: list[Tensor] = []

    def hear(self, answer: Output, batch: Batch, reference: Output | None) -> None:
        for metric in self.metrics:
            metric.update(answer, batch, reference)

    def keep(self, answer: Output, score: Tensor) -> None:
        decoded = self.task.decode(answer)
        if decoded[0].numel() <= SMALL:
            self.predictions.append(decoded)
        self.scores.append(score)

    def figures(self) -> dict[str, Measurement]:
        return {name: figure for metric in self.metrics for name, figure in metric.compute().items()}


def evaluate(
    speakers: Mapping[str, PredictFn],
    batches: Iterable[Batch],
    task: Task,
    classes: tuple[str, ...],
    *,
    against: Mapping[str, str] | None = None,
    judge: str | None = None,
    gallery: Collection[int] = (),
    keep: Callable[[str, Batch, Output, Tensor], None] | None = None,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Show every batch to every speaker, once, and count.

    Args:
        speakers: name -> network. Modules are put into evaluation mode for the pass and back into theirs after it.
        batches: images with targets; each is read once.
        task: whose metrics count.
        classes: names in label order.
        against: speaker -> the speaker that it is compared with, mostly the teacher.
        judge: the speaker whose answers stand as the targets, because no image has a label. It is itself judged by
            what is known without it.
        gallery: keys of images that are only compared with: metrics see them, nothing is kept of them. A batch is of
            the gallery or not.
        keep: called with (speaker, batch, answer, its score [B]) after each batch, all on the CPU, for instance to save
            samples.
        device: where the images are shown.

    Raises:
        ValueError: somebody is compared with nobody, or there is no image.
    """
    against = against or {}
    for name in (*against, *against.values()):
        if name not in speakers:
            raise ValueError(f"{name!r} is none of the speakers: {', '.join(speakers)}")
    tallies = {
        name: _Tally(
            task, task.metrics(classes, gallery) + [task.agreement_metric(classes, gallery)] * (name in against)
        )
        for name in speakers
    }
    targets, keys = [], []
    with eval_mode(speakers.values()):
        for batch in batches:
            answers = _listen(speakers, batch.images.to(device))
            truth = replace(batch, target=answers[judge]) if judge else batch
            for name, answer in answers.items():
                known = batch if name == judge else truth
                tallies[name].hear(answer, known, answers[against[name]] if name in against else None)
            if len(gallery) and int(batch.keys[0]) in gallery:
                continue
            targets.append(truth.target)
            keys.append(batch.keys)
            for name, answer in answers.items():
                score = task.score_per_image(answer, truth).float()
                tallies[name].keep(answer, score)
                if keep:
                    keep(name, truth, answer, score)
    if not keys:
        raise ValueError("there is no image to evaluate on")
    plain = all(isinstance(target, Tensor) and target.ndim == 1 for target in targets)
    return Evaluation(
        figures={name: tally.figures() for name, tally in tallies.items()},
        predictions={name: torch.cat(tally.predictions) for name, tally in tallies.items() if tally.predictions},
        scores={name: torch.cat(tally.scores) for name, tally in tallies.items()},
        targets=torch.cat(targets) if plain else None,
        keys=torch.cat(keys),
    )


def _listen(speakers: Mapping[str, PredictFn], images: Tensor) -> dict[str, Output]:
    """Every speaker's answer, on the CPU in float32.

    Inference mode ends here and the answers are copied out of it: tensors born in it may never be trained on, and
    whoever reads the batches may keep what it makes, such as a split decoded on first use.
    """
    with torch.inference_mode():
        answers = {name: speaker(images).pred.float().cpu() for name, speaker in speakers.items()}
    return {name: Output(pred=answer.clone()) for name, answer in answers.items()}

"""Networks × batches × metrics → figures. One pass evaluates all networks, so that the test split is read once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stillroom.evaluation.predict import predict
from stillroom.metrics._errors import FigureNameTaken
from stillroom.metrics.measurement import Measurement
from stillroom.metrics.metric import Metric
from stillroom.tasks.task import Task
from stillroom.types import Batch, Output, PredictFn

MAX_KEPT = 4096  # numbers an image, up to which predictions are kept


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The outcome of one pass over N images. The i-th entry everywhere belongs to the same image.

    Attributes:
        figures: network -> name -> measurement.
        predictions: network -> [N, ...], its decoded outputs, where they are small.
        scores: network -> [N] in 0..1, how right each output is.
        targets: [N] int64 labels; None where an image's target is not one number.
        keys: [N] int64 keys of the images, in the order in which they were read.
    """

    figures: dict[str, dict[str, Measurement]]
    predictions: dict[str, Tensor]
    scores: dict[str, Tensor]
    targets: Tensor | None
    keys: Tensor


class _Record:
    """Metrics, predictions and scores of one network."""

    def __init__(self, task: Task, metrics: list[Metric]):
        self.task, self.metrics = task, metrics
        self.predictions: list[Tensor] = []
        self.scores: list[Tensor] = []

    def update(self, output: Output, batch: Batch, reference: Output | None) -> None:
        for metric in self.metrics:
            metric.update(output, batch, reference)

    def keep(self, output: Output, score: Tensor) -> None:
        decoded = self.task.decode(output)
        if decoded[0].numel() <= MAX_KEPT:
            self.predictions.append(decoded)
        self.scores.append(score)

    def figures(self) -> dict[str, Measurement]:
        found: dict[str, Measurement] = {}
        for metric in self.metrics:
            figures = metric.compute()
            if taken := sorted(figures.keys() & found.keys()):
                raise FigureNameTaken(metric=getattr(metric, "name", type(metric).__name__), figure=taken[0])
            found |= figures
        return found


def evaluate(
    networks: Mapping[str, PredictFn],
    batches: Iterable[Batch],
    task: Task,
    classes: tuple[str, ...],
    *,
    against: Mapping[str, str] | None = None,
    reference: str | None = None,
    baseline: str | None = None,
    gallery: Collection[int] = (),
    keep: Callable[[str, Batch, Output, Tensor], None] | None = None,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Run every network once on every batch, and compute the task's metrics.

    Args:
        networks: name -> network with its task's last step. Modules are in evaluation mode for the pass.
        batches: images with targets; each is read once.
        task: whose metrics count.
        classes: names in label order.
        against: network -> the network that it is compared with, mostly the teacher.
        reference: the network whose outputs stand in for the targets, because no image has a label. It is itself
            measured without them.
        baseline: the network over which the `gain` of the others is tested on the same images.
        gallery: keys of images that others are compared with: metrics see them, nothing is kept of them. A batch is of
            the gallery or not.
        keep: called with (network, batch, output, its score [B]) after each batch, all on the CPU, for instance to save
            samples.
        device: where the networks are.

    Raises:
        ValueError: a name in `against` is none of the networks, or there is no image.
    """
    against = against or {}
    for name in (*against, *against.values()):
        if name not in networks:
            raise ValueError(f"{name!r} is none of the networks: {', '.join(networks)}")
    records = {
        name: _Record(
            task, task.metrics(classes, gallery) + [task.agreement_metric(classes, gallery)] * (name in against)
        )
        for name in networks
    }
    targets, keys = [], []
    for batch, outputs in predict(networks, batches, device):
        labelled = replace(batch, target=outputs[reference]) if reference else batch
        for name, output in outputs.items():
            known = batch if name == reference else labelled
            records[name].update(output, known, outputs[against[name]] if name in against else None)
        if len(gallery) and int(batch.keys[0]) in gallery:
            continue
        targets.append(labelled.target)
        keys.append(batch.keys)
        for name, output in outputs.items():
            score = task.score_per_image(output, labelled).float()
            records[name].keep(output, score)
            if keep:
                keep(name, labelled, output, score)
    if not keys:
        raise ValueError("there is no image to evaluate on")
    figures = {name: record.figures() for name, record in records.items()}
    if baseline in records:
        for name, gain in _gains(records, baseline).items():
            figures[name]["gain"] = gain
    return _evaluation(figures, records, targets, torch.cat(keys))


def _gains(records: Mapping[str, _Record], baseline: str) -> dict[str, Measurement]:
    """Network -> the headline figure less the baseline's, where the metric has a paired test."""
    least = records[baseline].metrics[0]
    found = {name: record.metrics[0].paired(least) for name, record in records.items() if name != baseline}
    return {name: gain for name, gain in found.items() if gain is not None}


def _evaluation(
    figures: dict[str, dict[str, Measurement]], records: Mapping[str, _Record], targets: list[object], keys: Tensor
) -> Evaluation:
    labels = [target for target in targets if isinstance(target, Tensor) and target.ndim == 1]
    return Evaluation(
        figures=figures,
        predictions={name: torch.cat(record.predictions) for name, record in records.items() if record.predictions},
        scores={name: torch.cat(record.scores) for name, record in records.items()},
        targets=torch.cat(labels) if len(labels) == len(targets) else None,
        keys=keys,
    )

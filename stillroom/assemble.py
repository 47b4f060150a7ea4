"""From a recipe's sections to the things they stand for: data, task, networks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stillroom import models, sections
from stillroom.data import dataset
from stillroom.data.dataset import Dataset, Split
from stillroom.data.random import spaced
from stillroom.errors import Failure
from stillroom.models.network import Network
from stillroom.plugins import pick
from stillroom.tasks.task import Task

HEADS: dict[str, Literal["keep", "any", "replace"]] = {"none": "keep", "head": "replace", "all": "any"}
"""How far a network is fitted -> what of a file's classifier is asked for."""

STATISTICS = 2048  # training images that the mean and deviation of the pixels are taken from


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Mean and standard deviation of the training pixels, a number a channel, 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_data(section: sections.Data, *, report: Path | None = None, channels: int | None = None) -> Dataset:
    """The images that a recipe's `[data]` names.

    Args:
        section: source, size and shares.
        report: folder for the list of unreadable images.
        channels: 1 or 3, whatever the images themselves have; None: as the source says.
    """
    source = pick("data/sources", section.source)(**section.arguments)
    if channels is not None:
        source.channels = channels
    return dataset.load(
        source,
        size=section.size,
        val=section.val,
        test=section.test,
        max_bad=section.max_bad,
        max_pixels=section.max_pixels,
        memory_gb=section.memory_gb,
        report=report,
    )


def make_task(section: sections.Task) -> Task:
    """The task of `[task]`."""
    task: Task = pick("tasks", section.name)(**section.arguments)
    return task


def matched(task: Task, data: Dataset) -> Task:
    """The task, if the data knows what it needs, and its metrics can be had.

    Raises:
        Failure: SR-D118 it does not; SR-X710 a metric's package is missing, said before anything is trained.
    """
    if task.needs != data.kind:
        raise Failure("SR-D118", task=type(task).__name__.lower(), needs=task.needs, kind=data.kind)
    task.metrics(data.classes)
    return task


def pixels_of(split: Split) -> Pixels:
    """Statistics of at most `STATISTICS` images of a split, evenly spread over it."""
    images = spread(split, STATISTICS).double()
    mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3)).clamp_min(1e-3)
    return Pixels(tuple(mean.tolist()), tuple(std.tolist()))


def make_network(
    section: sections.Teacher | sections.Student, data: Dataset, task: Task, pixels: Pixels, *, seed: int
) -> Network:
    """The network of `[teacher]` or `[student]`, before anything is trained.

    The same seed gives the same first weights, so that a student and its baseline begin alike. A classifier that has
    to be fitted starts new; one that is kept must have the data's classes, unless a map says which of its outputs
    they are. What a task may ask of images of any size is asked of them at the data's.
    """
    torch.manual_seed(seed)
    common: dict[str, Any] = {
        "channels": data.channels,
        "size": data.size,
        "mean": pixels.mean,
        "std": pixels.std,
        "answers": task.answers,
    }
    fit, map, outputs = getattr(section, "fit", "all"), getattr(section, "map", None), task.outputs(len(data.classes))
    classes = None if fit == "none" and (map or section.weights == "pretrained") else outputs
    if section.weights in ("none", "pretrained"):
        pretrained = section.weights == "pretrained"
        network = models.build(section.network, classes=classes, pretrained=pretrained, **common, **section.arguments)
    else:
        network = models.restore(
            section.network,
            str(section.weights),
            classes=classes,
            head=HEADS["head" if isinstance(section, sections.Student) else fit],
            trust=section.trust,
            **common,
            **section.arguments,
        )
    if task.any_size and network.size is None:
        network.size = data.size
    least = max(map, default=-1) + 1 if map else outputs
    if least is not None and (network.classes < least or (not map and network.classes != least)):
        raise Failure("SR-M301", name=section.network, theirs=network.classes, classes=len(data.classes))
    return network


def spread(split: Split, count: int) -> Tensor:
    """`count` images of a split, or all where it has fewer, evenly spread over it: [n, C, H, W] in 0..1."""
    return split.images(spaced(len(split), count)).float() / 255


@torch.no_grad()
def look(network: nn.Module, images: Tensor, taps: tuple[str, ...] = ()) -> Any:
    """What a network says of images, leaving no trace in it: no gradient, no new statistics, its mode as it was."""
    training = network.training
    try:
        return network.to(images.device).eval()(images, taps)
    finally:
        network.train(training)

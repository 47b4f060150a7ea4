"""From sections of a recipe to what they stand for: data, task, networks, the frozen teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from stillroom import models
from stillroom.config import schema
from stillroom.config.plugins import pick
from stillroom.data import dataset
from stillroom.data.dataset import Dataset
from stillroom.data.sampling import PLACEHOLDER_STATISTICS, PixelStatistics
from stillroom.distributed.precision import precision_for
from stillroom.metrics._errors import MetricWithoutTargets, UnknownMetric
from stillroom.metrics.metric import Metric
from stillroom.models._errors import ClassCountMismatch
from stillroom.models.network import Network
from stillroom.stages.errors import TaskDataMismatch
from stillroom.tasks._unlabelled import without_labels
from stillroom.tasks._with_metrics import with_metrics
from stillroom.tasks.task import Task
from stillroom.teachers.ensemble import Ensemble
from stillroom.teachers.frozen import FrozenTeacher

HEADS: dict[str, Literal["keep", "any", "replace"]] = {"none": "keep", "head": "replace", "all": "any"}
"""How much of a network is fine-tuned -> what is required of the classifier in its weights file."""

SEED_STRIDE = 1_000_003
"""Between the seeds of two teachers of one run: larger than any distance between the seeds of two runs."""


def build_data(section: schema.Data, *, report: Path | None = None, channels: int | None = None) -> Dataset:
    """The data set that `[data]` names.

    Args:
        section: source, size and shares of the splits.
        report: folder for the list of unreadable images.
        channels: 1 or 3, whatever the images have; None: as the source decides.
    """
    source = pick("data/sources", section.source)(**section.arguments)
    if channels is not None:
        source.channels = channels
    return dataset.load_dataset(
        source,
        size=section.size,
        val=section.val,
        test=section.test,
        labels=section.labels,
        teacher_images=section.teacher_images,
        max_bad=section.max_bad,
        max_pixels=section.max_pixels,
        memory_gb=section.memory_gb,
        report=report,
    )


def build_task(section: schema.Task, data: Dataset, metrics: Sequence[str] = ()) -> Task:
    """The task that `[task]` names; where no image has a label, its metrics compare with the teacher's outputs.

    Args:
        section: the task and its arguments.
        data: the images.
        metrics: names of further metrics.

    Raises:
        TaskDataMismatch: SR-D118 the data has other targets than the task needs.
        UnknownMetric, MetricWithoutTargets: SR-C442, SR-D143 one of `metrics` can't be computed.
        MetricPackageMissing: SR-X710, before anything is trained.
    """
    task: Task = pick("tasks", section.name)(**section.arguments)
    if task.target_kind != data.kind:
        raise TaskDataMismatch(task=type(task).__name__.lower(), needs=task.target_kind, kind=data.kind)
    task = with_metrics(task if data.labelled else without_labels(task), further_metrics(metrics, data))
    task.metrics(data.classes)
    return task


def further_metrics(names: Sequence[str], data: Dataset) -> dict[str, type[Metric]]:
    """Name -> class, each able to measure predictions on the data.

    Raises:
        UnknownMetric: SR-C442 it is no metric.
        MetricWithoutTargets: SR-D143 it needs labels, and there are none.
    """
    found: dict[str, type[Metric]] = {}
    for name in names:
        kind = pick("metrics", name)
        if not (isinstance(kind, type) and issubclass(kind, Metric)):
            raise UnknownMetric(name=name, problem=f"{kind!r} is no subclass of Metric")
        if kind.target_kind and not data.labelled:
            raise MetricWithoutTargets(metric=name, kind=kind.target_kind)
        found[name] = kind
    return found


def with_teacher_classes(data: Dataset, task: Task, teacher: schema.Teacher) -> Dataset:
    """Data without class names with as many as the teacher has, called by their numbers, if the task has classes."""
    if data.classes or task.num_outputs(1) is None:
        return data
    count = len(teacher.class_map or ()) or build_network(teacher, data, task, PLACEHOLDER_STATISTICS, seed=0).classes
    return dataclasses.replace(data, classes=tuple(map(str, range(count))))


def build_network(
    section: schema.Teacher | schema.Student, data: Dataset, task: Task, pixels: PixelStatistics, *, seed: int
) -> Network:
    """The network of `[teacher]` or `[student]`, before anything is trained.

    The same seed gives the same initial weights, so a student and its baseline start alike. A classifier that will be
    fine-tuned starts anew; one that is kept must have the data's classes, unless a class map selects them. For tasks
    that take images of any size, the network resizes to the data's size.

    Raises:
        ClassCountMismatch: SR-M301 the network has other outputs than the task needs.
    """
    torch.manual_seed(seed)
    common: dict[str, Any] = {
        "channels": data.channels,
        "size": data.size,
        "mean": pixels.mean,
        "std": pixels.std,
        "output_kind": task.output_kind,
    }
    finetune, map = getattr(section, "finetune", "all"), getattr(section, "class_map", None)
    outputs = task.num_outputs(len(data.classes)) if data.classes else None
    classes = None if finetune == "none" and (map or section.weights == "pretrained") else outputs
    if section.weights in ("none", "pretrained"):
        pretrained = section.weights == "pretrained"
        network = models.create_model(
            section.network, classes=classes, pretrained=pretrained, **common, **section.arguments
        )
    else:
        network = models.restore(
            section.network,
            str(section.weights),
            classes=classes,
            head=HEADS["head" if isinstance(section, schema.Student) else finetune],
            trust=section.trust,
            **common,
            **section.arguments,
        )
    if task.any_size and network.size is None:
        network.size = data.size
    least = max(map, default=-1) + 1 if map else outputs
    if least is not None and (network.classes < least or (not map and network.classes != least)):
        raise ClassCountMismatch(name=section.network, theirs=network.classes, classes=len(data.classes))
    return network


def teacher_sections(teachers: Sequence[schema.Teacher]) -> dict[str, schema.Teacher]:
    """Stage -> section of every teacher: "teacher", "teacher-2", "teacher-3" ... A stage names its weights file too."""
    return {f"teacher-{i}" if i > 1 else "teacher": one for i, one in enumerate(teachers, 1)}


def build_teachers(
    sections: Mapping[str, schema.Teacher], data: Dataset, task: Task, pixels: PixelStatistics, *, seed: int
) -> dict[str, Network]:
    """Stage -> network of every teacher, before anything is trained, each from a seed of its own.

    Raises:
        DetectorEnsemble, TeacherOutputsDiffer: SR-M370, SR-M371 they can't be averaged; found before hours of training.
        Others as `build_network`.
    """
    made = {
        stage: build_network(one, data, task, pixels, seed=seed + number * SEED_STRIDE)
        for number, (stage, one) in enumerate(sections.items())
    }
    combine_teachers(sections, list(made.values()))
    return made


def combine_teachers(sections: Mapping[str, schema.Teacher], networks: Sequence[Network]) -> nn.Module:
    """The only teacher's network, or an `Ensemble` of several.

    Raises:
        DetectorEnsemble, TeacherOutputsDiffer: SR-M370, SR-M371 they can't be averaged.
    """
    if len(networks) == 1:
        return networks[0]
    return Ensemble(networks, maps=[one.class_map for one in sections.values()], combine=sections["teacher"].combine)


def combine_mode(sections: Mapping[str, schema.Teacher], task: Task) -> str:
    """What is averaged over several teachers: "logits", "probabilities" or "vectors"."""
    return "vectors" if task.output_kind == "vector" else sections["teacher"].combine


def freeze(
    sections: Mapping[str, schema.Teacher],
    network: nn.Module,
    *,
    precision: torch.dtype,
    spread: nn.Module | None = None,
) -> FrozenTeacher:
    """The output of `combine_teachers`, frozen, with its class map. An ensemble maps each member's classes itself."""
    class_map = sections["teacher"].class_map if len(sections) == 1 else None
    return FrozenTeacher(network, map=class_map, precision=precision, spread=spread)


def teacher_precision(teacher: schema.Teacher, training: schema.Training, device: torch.device) -> torch.dtype:
    """The dtype of the teacher's arithmetic: its own, or that of the training."""
    return precision_for(device, training.precision if teacher.precision == "auto" else teacher.precision)

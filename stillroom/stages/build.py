"""From a recipe's sections to the things they stand for: data, task, networks."""

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
from stillroom.config.recipe import AUTO
from stillroom.data import dataset
from stillroom.data.dataset import Dataset
from stillroom.data.sampling import UNSEEN, PixelStatistics
from stillroom.distributed.precision import precision_for
from stillroom.models._errors import ClassCountMismatch
from stillroom.models.network import Network
from stillroom.stages.errors import NoLabelsForStudent, NoLabelsForTeacher, TaskDataMismatch
from stillroom.tasks._unlabelled import without_labels
from stillroom.tasks.task import Task
from stillroom.teachers.ensemble import Ensemble
from stillroom.teachers.frozen import FrozenTeacher

HEADS: dict[str, Literal["keep", "any", "replace"]] = {"none": "keep", "head": "replace", "all": "any"}
"""How far a network is fitted -> what of a file's classifier is asked for."""

APART = 1_000_003  # between the seeds of two teachers of one run; no two runs are so far apart


def build_data(section: schema.Data, *, report: Path | None = None, channels: int | None = None) -> Dataset:
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


def build_task(section: schema.Task) -> Task:
    """The task of `[task]`."""
    task: Task = pick("tasks", section.name)(**section.arguments)
    return task


def task_for(section: schema.Task, data: Dataset) -> Task:
    """The task of `[task]`, see `matched`; where no image has a label, it asks for agreement with the teacher."""
    task = check_task(build_task(section), data)
    return task if data.labelled else without_labels(task)


def check_task(task: Task, data: Dataset) -> Task:
    """The task, if the data knows what it needs, and its metrics can be had.

    Raises:
        StillroomError: SR-D118 it does not; SR-X710 a metric's package is missing, said before anything is trained.
    """
    if task.target_kind != data.kind:
        raise TaskDataMismatch(task=type(task).__name__.lower(), needs=task.target_kind, kind=data.kind)
    task.metrics(data.classes)
    return task


def build_data_and_task(recipe: schema.Recipe, *, report: Path | None = None) -> tuple[schema.Recipe, Dataset, Task]:
    """The images of a recipe, what is asked of them, and the recipe as it can be done with them.

    Where no image has a label, the classes are the teacher's, called by their numbers unless somebody names them, the
    task asks for agreement with it, and labels weigh nothing.

    Args:
        recipe: the whole experiment.
        report: as for `load_data`.

    Raises:
        StillroomError: as `load_data` and `matched`; SR-D140 a teacher would have to learn, SR-D142 nothing would
            teach.
    """
    data = build_data(recipe.data, report=report)
    task = task_for(recipe.task, data)
    if data.labelled:
        return recipe, data, task
    teachers = {"teacher": recipe.teacher} | {f"teacher.others[{i}]": t for i, t in enumerate(recipe.teacher.others)}
    for section, teacher in teachers.items():
        if teacher.fit != "none":
            raise NoLabelsForTeacher(section=section, fit=teacher.fit)
    blind = [m.name for m in recipe.methods if m.name != AUTO and pick("methods", m.name).needs_labels]
    if blind or not recipe.methods:
        why = f"{', '.join(blind)} set the true class apart" if blind else "there are no methods"
        raise NoLabelsForStudent(methods=why)
    unweighted = dataclasses.replace(recipe, task=dataclasses.replace(recipe.task, weight=0.0))
    return unweighted, with_teacher_classes(data, task, recipe.teacher), task


def with_teacher_classes(data: Dataset, task: Task, teacher: schema.Teacher) -> Dataset:
    """Data that has no classes with those of the teacher, if the task has any."""
    if data.classes or task.num_outputs(1) is None:
        return data
    count = len(teacher.map or ()) or build_network(teacher, data, task, UNSEEN, seed=0).classes
    return dataclasses.replace(data, classes=tuple(map(str, range(count))))


def build_network(
    section: schema.Teacher | schema.Student, data: Dataset, task: Task, pixels: PixelStatistics, *, seed: int
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
    fit, map = getattr(section, "fit", "all"), getattr(section, "map", None)
    outputs = task.num_outputs(len(data.classes)) if data.classes else None
    classes = None if fit == "none" and (map or section.weights == "pretrained") else outputs
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
            head=HEADS["head" if isinstance(section, schema.Student) else fit],
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


def teacher_sections(section: schema.Teacher) -> dict[str, schema.Teacher]:
    """Every teacher under the name of its stage, and so of its file: "teacher", "teacher-2", "teacher-3" ..."""
    return {f"teacher-{i}" if i > 1 else "teacher": one for i, one in enumerate((section, *section.others), 1)}


def build_teachers(
    stages: Mapping[str, schema.Teacher], data: Dataset, task: Task, pixels: PixelStatistics, *, seed: int
) -> dict[str, Network]:
    """The networks of all teachers, before anything is trained: stage -> network.

    Each begins from a seed of its own: two of one kind that began alike would know the same.

    Raises:
        StillroomError: as `make_network`; SR-M370, SR-M371 several of them can't be one.
    """
    made = {
        stage: build_network(one, data, task, pixels, seed=seed + number * APART)
        for number, (stage, one) in enumerate(stages.items())
    }
    combine_teachers(stages["teacher"], list(made.values()))  # asked here, before hours are spent on each of them
    return made


def combine_teachers(section: schema.Teacher, networks: Sequence[Network]) -> nn.Module:
    """The network that the student hears: the only teacher, or all of them as one.

    Raises:
        StillroomError: SR-M370, SR-M371 they can't be one.
    """
    if not section.others:
        return networks[0]
    maps = [one.map for one in teacher_sections(section).values()]
    return Ensemble(networks, maps=maps, combine=section.combine)


def combine_mode(section: schema.Teacher, task: Task) -> str:
    """What of several teachers the mean is taken of, as a word."""
    return "vectors" if task.answers == "vector" else section.combine


def freeze(
    recipe: schema.Recipe, network: nn.Module, device: torch.device, sample_images: nn.Module | None = None
) -> FrozenTeacher:
    """What `together` gave, as it teaches: in the data's classes, in the recipe's precision. `spread`: see `FrozenTeacher`."""
    map = None if recipe.teacher.others else recipe.teacher.map
    return FrozenTeacher(network, map=map, precision=teacher_precision(recipe, device), spread=sample_images)


def teacher_precision(recipe: schema.Recipe, device: torch.device) -> torch.dtype:
    """Of the teacher's arithmetic: what the training computes in, unless the recipe says another."""
    asked = recipe.teacher.precision
    return precision_for(device, recipe.train.precision if asked == "auto" else asked)

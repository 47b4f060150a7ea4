"""`stillroom check`: all that can be known without training, down to one real batch through both networks."""

from __future__ import annotations

from typing import Any, cast

import torch

from stillroom import assemble, lessons, vitals
from stillroom.benchmark import operations
from stillroom.data.dataset import Dataset
from stillroom.data.inspect import inspect, refuse
from stillroom.data.loader import Loader
from stillroom.engine import Engine
from stillroom.learn import score
from stillroom.learner import Learner
from stillroom.lessons import Lessons
from stillroom.methods.method import Method
from stillroom.models.network import Network
from stillroom.sections import Recipe
from stillroom.state import State
from stillroom.tasks.task import Task
from stillroom.teachers.frozen import Frozen
from stillroom.types import Batch, Output
from stillroom.weighting import Weight


def check(recipe: Recipe) -> dict[str, Any]:
    """Subject -> what was found, a line or a list of lines.

    Raises:
        Failure: what would stop the run, before it has cost anything.
    """
    data = assemble.load_data(recipe.data)
    task = assemble.matched(assemble.make_task(recipe.task), data)
    pixels = assemble.pixels_of(data.splits["train"])
    teacher = assemble.make_network(recipe.teacher, data, task, pixels, seed=recipe.seeds[0])
    student = assemble.make_network(recipe.student, data, task, pixels, seed=recipe.seeds[0])
    findings = inspect(data.source, data)
    refuse(findings)
    sizes = {name: len(split.listed) for name, split in data.splits.items()}
    shares = ", ".join(f"{count} {name}" for name, count in sizes.items())
    return {
        "recipe": f"{recipe.name}: every key and every value is known",
        "data": [
            f"{len(data.classes)} classes, {shares}, {data.channels} channels of {data.size}x{data.size}",
            *(str(finding.failure).partition("\n")[0] for finding in findings),
        ],
        "teacher": _network(recipe.teacher, teacher, data),
        "student": _network(recipe.student, student, data),
        "ratio": f"the student has {_share(student, teacher, data):.1%} of the teacher's MACs",
    } | _distillation(recipe, task, teacher, student, data)


def _network(section: Any, network: Network, data: Dataset) -> str:
    macs = operations.macs(network, (data.channels, data.size, data.size))
    fit = {None: "", "all": ", trained", "head": ", a new head fitted", "none": ", as it is"}[
        getattr(section, "fit", None)
    ]
    weights = "no weights" if section.weights == "none" else section.weights
    return f"{section.network}: {operations.parameters(network):,} parameters, {macs / 1e6:.2f} M MACs; {weights}{fit}"


def _share(student: Network, teacher: Network, data: Dataset) -> float:
    shape = (data.channels, data.size, data.size)
    return operations.macs(student, shape) / operations.macs(teacher, shape)


def _distillation(recipe: Recipe, task: Task, network: Network, student: Network, data: Dataset) -> dict[str, Any]:
    """Whether distillation is really on: the pairs, the losses on one real batch, and what `vitals` measures.

    Raises:
        Failure: SR-M331, SR-T320, SR-T321: it would not be.
    """
    split, frozen = data.splits["train"], Frozen(network, map=recipe.teacher.map)
    taught = lessons.prepare(recipe, student, frozen, assemble.spread(split, lessons.LOOKS), seed=recipe.seeds[0])
    weights = taught.weights | {"task": Weight(recipe.task.weight)}
    learner = Learner(student, task, taught.methods, weights).train()
    batch = Loader(split, batch=min(recipe.train.batch, 32), seed=recipe.seeds[0], augment=recipe.augment).at(0)
    heard = frozen((batch.images,), batch.keys, learner.teacher_taps)
    state = State.fresh(learner, recipe.train, scaled=False)
    torch.manual_seed(recipe.seeds[0])
    found = {
        "methods": _chosen(taught),
        "batch": [str(term) for term in vitals.terms(learner, heard, batch)],
        "teaching": [
            f"the teacher: {vitals.teacher(frozen, batch, heard)}",
            *vitals.own_parts(learner, state, heard, batch),
        ],
        "conventions": [
            line
            for label, method in taught.methods.items()
            if task.answers == "classes"
            and (line := vitals.conventions(label, method, student(batch.images), heard, batch))
        ],
        "knowledge": _knowledge(frozen, task, data)
        if recipe.teacher.fit == "none"
        else ["the teacher learns its classes here, from this data's labels"],
    }
    return {subject: lines for subject, lines in found.items() if lines}


def _conventions(learner: Learner, heard: Output, batch: Batch) -> list[str]:
    said = learner.student(batch.images)
    methods = ((label, cast(Method, method)) for label, method in learner.methods.items())
    return [line for label, method in methods if (line := vitals.conventions(label, method, said, heard, batch))]


def _knowledge(frozen: Frozen, task: Task, data: Dataset) -> list[str]:
    """What the teacher knows of the val images already."""
    if task.answers == "classes":
        return vitals.knowledge(frozen, data.splits["val"], len(data.classes))
    found = score(frozen.speak, task, data.splits["val"], data.classes, 32, Engine(1))
    return [f"{task.about.title} {found:.1%} on {len(data.splits['val'])} val images"]


def _chosen(taught: Lessons) -> list[str]:
    """Which methods, why, and what of both networks they compare."""
    why = [f"{taught.choice.situation}: {taught.choice.why}"] if taught.choice else []
    pairs = [
        f"{label}: {'; '.join(map(str, pairs)) if pairs else 'predictions'}" for label, pairs in taught.pairs.items()
    ]
    return why + pairs

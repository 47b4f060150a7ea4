"""`stillroom check`: all that can be known without training, down to one real batch through both networks."""

from __future__ import annotations

from typing import Any

import torch

from stillroom import assemble
from stillroom.benchmark import operations
from stillroom.data.dataset import Dataset
from stillroom.data.inspect import inspect, refuse
from stillroom.data.loader import Loader
from stillroom.errors import Failure
from stillroom.learner import Learner
from stillroom.models.network import Network
from stillroom.recipe import Recipe
from stillroom.teachers.frozen import Frozen


def check(recipe: Recipe) -> dict[str, Any]:
    """Subject -> what was found, a line or a list of lines.

    Raises:
        Failure: what would stop the run, before it has cost anything.
    """
    data = assemble.load_data(recipe.data)
    pixels = assemble.pixels_of(data.splits["train"])
    teacher = assemble.make_network(recipe.teacher, data, pixels, seed=recipe.seeds[0])
    student = assemble.make_network(recipe.student, data, pixels, seed=recipe.seeds[0])
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
        "batch": _one_step(recipe, teacher, student, data),
    }


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


def _one_step(recipe: Recipe, teacher: Network, student: Network, data: Dataset) -> list[str]:
    """Each term on one real batch, and the length of its gradient on the student.

    Raises:
        Failure: SR-M331 a term does not reach the student.
    """
    split = data.splits["train"]
    frozen = Frozen(teacher, map=recipe.teacher.map)
    methods, weights = assemble.make_methods(
        recipe.methods, student, frozen, split, seed=recipe.seeds[0], device=torch.device("cpu")
    )
    learner = Learner(student, assemble.make_task(recipe.task), methods, weights | {"task": recipe.task.weight}).train()
    batch = Loader(split, batch=min(recipe.train.batch, 32), seed=recipe.seeds[0], augment=recipe.augment).at(0)
    heard = frozen((batch.images,), batch.keys, learner.teacher_taps)
    lines = []
    for name, value in learner(batch, heard, 0.0).items():
        grads = torch.autograd.grad(value, list(student.parameters()), retain_graph=True, allow_unused=True)
        length = sum(float(grad.square().sum()) for grad in grads if grad is not None) ** 0.5
        if not (length > 0 and length < float("inf")):
            raise Failure("SR-M331", term=name, value=value.item(), length=length)
        weight = learner.weight(name)
        lines.append(f"{name} = {value.item():.4f}, times {weight:g}; its gradient on the student is {length:.3g} long")
    return lines

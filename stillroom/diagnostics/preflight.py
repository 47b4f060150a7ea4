"""`stillroom check`: all that can be known without training, down to one real batch through both networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from stillroom.benchmark.target import describe_device, describe_limits
from stillroom.config import device_profile
from stillroom.config.schema import Recipe, Teacher
from stillroom.data import sampling
from stillroom.data.dataset import Dataset
from stillroom.data.inspect import inspect, refuse
from stillroom.data.loader import Loader
from stillroom.diagnostics import distillation
from stillroom.distributed.engine import Engine
from stillroom.evaluation.validate import validate
from stillroom.matching import method_setup
from stillroom.matching.method_setup import MethodSetup
from stillroom.models import flops
from stillroom.models.network import Network
from stillroom.stages import build, compress, export
from stillroom.tasks.task import Task
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.training.distiller import Distiller
from stillroom.training.loss_weights import Weight
from stillroom.training.state import State


def preflight(recipe: Recipe) -> dict[str, Any]:
    """Subject -> what was found, a line or a list of lines.

    Raises:
        StillroomError: what would stop the run, before it has cost anything.
    """
    recipe, data, task = build.build_data_and_task(recipe)
    pixels = sampling.pixel_statistics(data.splits["train"])
    stages = build.teacher_sections(recipe.teacher)
    teachers = build.build_teachers(stages, data, task, pixels, seed=recipe.seeds[0])
    whole = build.combine_teachers(recipe.teacher, list(teachers.values()))
    student = build.build_network(recipe.student, data, task, pixels, seed=recipe.seeds[0])
    findings = inspect(data.source, data)
    refuse(findings)
    sizes = {name: len(split.listed) for name, split in data.splits.items()}
    shares = ", ".join(f"{count} {name}" for name, count in sizes.items())
    return {
        "recipe": f"{recipe.name}: every key and every value is known",
        "data": [
            f"{len(data.classes)} classes, {shares}, {data.channels} channels of {data.size}x{data.size}",
            *([f"{blind} images have no label"] if (blind := data.summary()["unlabelled"]) else []),
            *(str(finding.failure).partition("\n")[0] for finding in findings),
        ],
        **{stage: _network(one, teachers[stage], data) for stage, one in stages.items()},
        **_together(recipe.teacher, task),
        "student": _network(recipe.student, student, data),
        "ratio": f"the student has {_share(student, whole, data):.1%} of the teacher's MACs",
        **_then(recipe),
    } | _distillation(recipe, task, teachers, whole, student, data)


def _network(section: Any, network: Network, data: Dataset) -> str:
    macs = flops.macs(network, (data.channels, data.size, data.size))
    fit = {None: "", "all": ", trained", "head": ", a new head fitted", "none": ", as it is"}[
        getattr(section, "fit", None)
    ]
    weights = "no weights" if section.weights == "none" else section.weights
    return f"{section.network}: {flops.parameters(network):,} parameters, {macs / 1e6:.2f} M MACs; {weights}{fit}"


def _share(student: nn.Module, teacher: nn.Module, data: Dataset) -> float:
    shape = (data.channels, data.size, data.size)
    return flops.macs(student, shape) / flops.macs(teacher, shape)


def _together(section: Teacher, task: Task) -> dict[str, str]:
    """What several teachers are as one."""
    said = f"{1 + len(section.others)} teachers as one: the mean of their {build.combine_mode(section, task)}"
    return {"together": said} if section.others else {}


def _then(recipe: Recipe) -> dict[str, Any]:
    """What becomes of the student once it is taught; whether all that this takes is installed.

    Raises:
        StillroomError: as `proof.ready`.
    """
    export.check_available(recipe)
    chosen = "chosen by measuring, see `stillroom plan`" if recipe.target and not recipe.compress else None
    smaller = (
        [chosen]
        if chosen
        else [said for stage, said in compress.stage_descriptions(recipe).items() if stage != compress.DISTILLED]
    )
    files = [f"{one.target}, {'float' if one.bits == 32 else f'{one.bits} bits'}" for one in recipe.export]
    found = {"made smaller": smaller if recipe.compress or chosen else [], "files": files}
    if recipe.target:
        target = device_profile.with_profile(recipe.target)
        found["target"] = [f"{describe_limits(target)} on {describe_device(target)}, {target.runtime}"]
    return {subject: lines for subject, lines in found.items() if lines}


def _distillation(
    recipe: Recipe, task: Task, teachers: Mapping[str, Network], whole: nn.Module, student: Network, data: Dataset
) -> dict[str, Any]:
    """Whether distillation is really on: the pairs, the losses on one real batch, and what `vitals` measures.

    Raises:
        StillroomError: SR-M331, SR-T320, SR-T321: it would not be.
    """
    split, frozen = data.splits["train"], build.freeze(recipe, whole, torch.device("cpu"))
    taught = method_setup.build_methods(
        recipe, student, frozen, sampling.sample_images(split, method_setup.LOOKS), seed=recipe.seeds[0]
    )
    weights = taught.weights | {"task": Weight(recipe.task.weight)}
    learner = Distiller(student, task, taught.methods, weights).train()
    batch = Loader(split, batch=min(recipe.train.batch, 32), seed=recipe.seeds[0], augment=recipe.augment).at(0)
    heard = frozen((batch.images,), batch.keys, learner.teacher_taps)
    state = State.fresh(learner, recipe.train, scaled=False)
    torch.manual_seed(recipe.seeds[0])
    found = {
        "methods": _chosen(taught),
        "batch": [str(term) for term in distillation.terms(learner, heard, batch)],
        "teaching": [
            f"the teacher: {distillation.teacher(frozen, batch, heard)}",
            *distillation.own_parts(learner, state, heard, batch),
        ],
        "conventions": [
            line
            for label, method in taught.methods.items()
            if task.answers == "classes"
            and (line := distillation.conventions(label, method, student(batch.images), heard, batch))
        ],
        "knowledge": _knowledge(recipe, teachers, frozen, task, data),
    }
    return {subject: lines for subject, lines in found.items() if lines}


def _knowledge(
    recipe: Recipe, teachers: Mapping[str, Network], whole: FrozenTeacher, task: Task, data: Dataset
) -> list[str]:
    """What the teachers know of the val images already, each and, where there are several, all together."""
    if not data.labelled:
        return ["no image has a label: what the teacher says is taken for right"]
    found, stages = [], build.teacher_sections(recipe.teacher)
    for stage, one in stages.items():
        said = ["learns its classes here, from this data's labels"]
        if one.fit == "none":
            said = _known(FrozenTeacher(teachers[stage], map=one.map, precision=whole.precision), task, data)
        found += [f"{stage}: {line}" for line in said]
    if len(stages) > 1 and all(one.fit == "none" for one in stages.values()):
        found += [f"together: {line}" for line in _known(whole, task, data)]
    return found


def _known(frozen: FrozenTeacher, task: Task, data: Dataset) -> list[str]:
    if task.answers == "classes":
        return distillation.knowledge(frozen, data.splits["val"], len(data.classes))
    found = validate(frozen.speak, task, data.splits["val"], data.classes, 32, Engine(1))
    return [f"{task.info.title} {found:.1%} on {len(data.splits['val'])} val images"]


def _chosen(taught: MethodSetup) -> list[str]:
    """Which methods, why, and what of both networks they compare."""
    why = [f"{taught.choice.situation}: {taught.choice.why}"] if taught.choice else []
    pairs = [
        f"{label}: {'; '.join(map(str, pairs)) if pairs else 'predictions'}" for label, pairs in taught.pairs.items()
    ]
    return why + pairs

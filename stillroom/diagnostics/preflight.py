"""`stillroom check`: all that can be known without training, down to one real batch through both networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stillroom.benchmark.target import describe_device, describe_limits
from stillroom.config.device_profile import with_profile
from stillroom.config.schema import Recipe, Student, Teacher
from stillroom.data.inspect import Finding, inspect, raise_first_error
from stillroom.data.loader import Loader
from stillroom.diagnostics import distillation
from stillroom.distributed.one_process import OneProcess
from stillroom.evaluation.validate import validate
from stillroom.matching.method_setup import MethodSetup
from stillroom.models import flops
from stillroom.models.network import Network
from stillroom.pipeline.prepare import prepare
from stillroom.stages import build
from stillroom.stages.compress import DISTILLED, stage_descriptions
from stillroom.stages.experiment import Experiment
from stillroom.stages.export import check_available
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.training.pull import findings as loss_findings
from stillroom.training.state import State

FINETUNED = {"all": ", trained", "head": ", a new head fitted", "none": ", as it is"}


def preflight(recipe: Recipe) -> dict[str, Any]:
    """Subject -> findings, a line or a list of lines.

    Raises:
        StillroomError: what would stop the run, before it has cost anything.
    """
    experiment = prepare(recipe, OneProcess())
    teachers, student = experiment.initial_teachers(), experiment.initial_student()
    whole = build.combine_teachers(experiment.teachers, list(teachers.values()))
    findings = inspect(experiment.data.source, experiment.data)
    raise_first_error(findings)
    share = experiment.macs(student) / experiment.macs(whole)
    found: dict[str, Any] = {"recipe": f"{recipe.name}: every key and every value is known"}
    found["data"] = _data(experiment, findings)
    found |= {stage: _network(experiment, one, teachers[stage]) for stage, one in experiment.teachers.items()}
    if len(teachers) > 1:
        mode = build.combine_mode(experiment.teachers, experiment.task)
        found["ensemble"] = f"{len(teachers)} teachers: the mean of their {mode}"
    found["student"] = _network(experiment, experiment.student, student)
    found["ratio"] = f"the student has {share:.1%} of the teacher's MACs"
    return found | _after_training(recipe) | _distillation(experiment, teachers, student)


def _data(experiment: Experiment, findings: Sequence[Finding]) -> list[str]:
    data = experiment.data
    sizes = ", ".join(f"{len(split.listed)} {name}" for name, split in data.splits.items())
    unlabelled = data.summary()["unlabelled"]
    return [
        f"{len(data.classes)} classes, {sizes}, {data.channels} channels of {data.size}x{data.size}",
        *([f"{unlabelled} images have no label"] if unlabelled else []),
        *(str(finding.failure).partition("\n")[0] for finding in findings),
    ]


def _network(experiment: Experiment, section: Teacher | Student, network: Network) -> str:
    finetuned = FINETUNED[section.finetune or "none"] if isinstance(section, Teacher) else ""
    weights = "no weights" if section.weights == "none" else section.weights
    return (
        f"{section.network}: {flops.parameters(network):,} parameters, {experiment.macs(network) / 1e6:.2f} M MACs; "
        f"{weights}{finetuned}"
    )


def _after_training(recipe: Recipe) -> dict[str, list[str]]:
    """Compressions, files and limits of the recipe; whether all that they need is installed.

    Raises:
        StillroomError: as `check_available`.
    """
    target = recipe.deploy and with_profile(recipe.deploy)
    check_available(recipe.export, recipe.compress, target)
    descriptions = stage_descriptions(recipe.compress)
    if recipe.compress:
        compression = [what for stage, what in descriptions.items() if stage != DISTILLED]
    else:
        compression = ["chosen by measuring, see `stillroom plan`"] if target else []
    found = {
        "compression": compression,
        "files": [f"{one.runtime}, {'float' if one.bits == 32 else f'{one.bits} bits'}" for one in recipe.export],
        "target": [f"{describe_limits(target)} on {describe_device(target)}, {target.runtime}"] if target else [],
    }
    return {subject: lines for subject, lines in found.items() if lines}


def _distillation(experiment: Experiment, teachers: dict[str, Network], student: Network) -> dict[str, list[str]]:
    """Whether distillation is really on: the layer pairs, the losses on one real batch, the teacher's accuracy.

    Raises:
        NoGradient, TeacherNotFrozen, UnusedMethodParameters: SR-M331, SR-T320, SR-T321.
    """
    accuracy_of = {
        stage: network for stage, network in teachers.items() if experiment.teachers[stage].finetune == "none"
    }
    teacher = experiment.freeze(teachers)
    setup = experiment.method_setup(student, teacher)
    distiller = experiment.distiller(student, setup).train()
    batch = Loader(
        experiment.data.splits["train"],
        batch=min(experiment.training.batch, 32),
        seed=experiment.seed,
        augment=experiment.augment,
    ).at(0)
    output = teacher((batch.images,), batch.keys, distiller.teacher_taps)
    state = State.fresh(distiller, experiment.training, scaled=False)
    torch.manual_seed(experiment.seed)
    terms = distillation.terms(distiller, output, batch)
    found = {
        "methods": _methods(setup),
        "losses": [*map(str, terms), *(failure.warning for failure in loss_findings(terms))],
        "gradients": [
            f"the teacher: {distillation.check_frozen(teacher, batch, output)}",
            *distillation.check_parameters(distiller, state, output, batch),
        ],
        "conventions": [
            line
            for label, method in setup.methods.items()
            if experiment.task.output_kind == "classes"
            and (line := distillation.conventions(label, method, student(batch.images), output, batch))
        ],
        "teacher accuracy": _teacher_accuracy(experiment, accuracy_of, teacher),
    }
    return {subject: lines for subject, lines in found.items() if lines}


def _methods(setup: MethodSetup) -> list[str]:
    """Which methods, why, and which layers of both networks they compare."""
    why = [f"{setup.choice.situation}: {setup.choice.why}"] if setup.choice else []
    pairs = [
        f"{label}: {'; '.join(map(str, pairs)) if pairs else 'predictions'}" for label, pairs in setup.pairs.items()
    ]
    return why + pairs


def _teacher_accuracy(experiment: Experiment, finished: dict[str, Network], whole: FrozenTeacher) -> list[str]:
    """How good the teachers are on val: each that is taken as it is, and the ensemble where that is all of them."""
    if not experiment.data.labelled:
        return ["no image has a label: the teacher's outputs are the targets"]
    found = []
    for stage, section in experiment.teachers.items():
        lines = ["is trained here, on the labels of this data"]
        if stage in finished:
            lines = _accuracy(
                experiment, FrozenTeacher(finished[stage], map=section.class_map, precision=whole.precision)
            )
        found += [f"{stage}: {line}" for line in lines]
    if len(finished) == len(experiment.teachers) > 1:
        found += [f"ensemble: {line}" for line in _accuracy(experiment, whole)]
    return found


def _accuracy(experiment: Experiment, teacher: FrozenTeacher) -> list[str]:
    data, task = experiment.data, experiment.task
    if task.output_kind == "classes":
        return distillation.teacher_accuracy(teacher, data.splits["val"], len(data.classes))
    value = validate(teacher.predict, task, data.splits["val"], data.classes)
    return [f"{task.info.title} {value:.1%} on {len(data.splits['val'])} val images"]

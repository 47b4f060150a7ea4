"""What the figures of a run depend on, as run.json lists it for people and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stillroom.config.schema import Recipe, Student, Teacher
from stillroom.distributed.precision import precision_for
from stillroom.export.runtime import packages
from stillroom.io import environment
from stillroom.io.run_dir import RunDir
from stillroom.stages import build
from stillroom.stages.experiment import Experiment
from stillroom.tasks.task import Task

DATA_FACTS = ("classes", "channels", "size", "bad", "unlabelled", "fingerprint")


def record_provenance(
    run: RunDir, recipe: Recipe, experiment: Experiment, *, teacher_seed: int | None, num_students: int
) -> None:
    """Write to run.json: command, versions, hardware, data, task and networks.

    Args:
        run: whose run.json.
        recipe: of the run.
        experiment: built from it.
        teacher_seed: of the run that trained the teachers, where it is another.
        num_students: seeds of the recipe.
    """
    engine, task = experiment.engine, experiment.task
    hardware = environment.hardware(engine.device, engine.world)
    precision = str(precision_for(engine.device, recipe.train.precision)).removeprefix("torch.")
    home = run.folder.parent if num_students > 1 else run.folder
    by = "here" if teacher_seed is None else f"by the run of seed {teacher_seed}"
    run.note(
        name=recipe.name,
        seeds=list(recipe.seeds),
        command=f"stillroom run {home / 'recipe.toml'}",
        directory=str(Path.cwd()),
        versions=environment.versions(packages(section.runtime for section in recipe.export)),
        hardware=hardware | {"precision": precision},
        task={"name": recipe.task.name, "answers": task.output_kind} | asdict(task.about),
        data=_data_facts(recipe, experiment),
        networks={
            "teacher": _teacher_facts(experiment.teachers, task, by),
            "student": _network_facts(recipe.student, "all", "here"),
        },
    )


def _data_facts(recipe: Recipe, experiment: Experiment) -> dict[str, Any]:
    data = experiment.data
    images = {name: len(split.listed) for name, split in data.splits.items()}
    summary = data.summary()
    return {"source": recipe.data.source} | images | {name: summary[name] for name in DATA_FACTS}


def _network_facts(section: Teacher | Student, fit: str, by: str) -> dict[str, Any]:
    fitted = {"head": f", its head fitted {by}", "all": f", trained further {by}"}.get(fit, "")
    weights = f"trained {by}" if section.weights == "none" else f"{section.weights}{fitted}"
    return {"network": section.network, "arguments": dict(section.arguments), "weights": weights}


def _teacher_facts(sections: Mapping[str, Teacher], task: Task, by: str) -> dict[str, Any]:
    """Of several teachers, the ensemble and each member."""
    each = [_network_facts(one, one.finetune or "", by) for one in sections.values()]
    if len(each) == 1:
        return each[0]
    return {
        "network": " + ".join(one["network"] for one in each),
        "weights": "; ".join(one["weights"] for one in each),
        "arguments": {},
        "combine": build.combine_mode(sections, task),
        "members": each,
    }

"""From a recipe to the experiment that it describes. No room above takes a recipe: sections and values only."""

from __future__ import annotations

from pathlib import Path

from stillroom.config.plugins import pick
from stillroom.config.recipe import AUTO
from stillroom.config.schema import Recipe
from stillroom.distributed.one_process import Processes
from stillroom.pipeline.errors import NoLabelsForStudent, NoLabelsForTeacher
from stillroom.stages import build
from stillroom.stages.experiment import Experiment


def prepare(recipe: Recipe, engine: Processes, *, report: Path | None = None) -> Experiment:
    """The data and task of a recipe, with the sections that networks are built from.

    Where no image has a label, the classes are the teacher's, called by their numbers unless the data names them, the
    metrics measure agreement with it, and the labels' loss has weight 0.

    Args:
        recipe: with the seed that counts first.
        engine: the processes.
        report: folder for the list of unreadable images.

    Raises:
        StillroomError: as `build.build_data` and `build.build_task`; SR-D140 a teacher would need labels, SR-D142 there
            would be no loss.
    """
    data = build.build_data(recipe.data, report=report)
    task = build.build_task(recipe.task, data, recipe.metrics)
    if not data.labelled:
        _check_unlabelled(recipe)
        data = build.with_teacher_classes(data, task, recipe.teacher)
    return Experiment(
        data=data,
        task=task,
        teachers=build.teacher_sections(recipe.all_teachers),
        student=recipe.student,
        methods=recipe.methods,
        label_weight=recipe.task.weight if data.labelled else 0.0,
        gradient_balancing=recipe.gradient_balancing,
        training=recipe.train,
        augment=recipe.augment,
        cache=recipe.cache,
        seed=recipe.seeds[0],
        engine=engine,
    )


def _check_unlabelled(recipe: Recipe) -> None:
    teachers = {"teacher": recipe.teacher} | {f"teachers[{i}]": one for i, one in enumerate(recipe.teachers)}
    for section, teacher in teachers.items():
        if teacher.finetune != "none":
            raise NoLabelsForTeacher(section=section, finetune=teacher.finetune)
    blind = [m.name for m in recipe.methods if m.name != AUTO and pick("methods", m.name).needs_labels]
    if blind or not recipe.methods:
        why = f"{', '.join(blind)} set the true class apart" if blind else "there are no methods"
        raise NoLabelsForStudent(methods=why)

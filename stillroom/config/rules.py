"""Rules between sections of a recipe, and of the plug-ins that they name."""

from __future__ import annotations

import dataclasses
from typing import Any

from stillroom.config.expand import OPEN, with_arguments
from stillroom.config.plugins import pick
from stillroom.config.schema import AUTO, Method, Recipe, Student, Teacher
from stillroom.config.validation import not_found, plugin_problems

PLUGINS = {
    "data": ("data/sources", "source"),
    "task": ("tasks", "name"),
    "methods": ("methods", "name"),
    "compress": ("compress", "name"),
}
"""Section -> the folder its further keys belong to, and the key that names the plug-in."""

FROM_DATA = {"classes", "channels", "size", "mean", "std", "pretrained"}
"""What every network gets from the program, and a recipe therefore can't set."""


def plugin_sections(raw: dict[str, Any]) -> list[str]:
    """Problems with plug-ins: names that do not exist, and arguments that their constructors do not take."""
    found: list[str] = []
    for key in PLUGINS:
        value = raw.get(key)
        places = [(f"{key}[{i}]", one) for i, one in enumerate(value)] if isinstance(value, list) else [(key, value)]
        for path, given in places:
            if isinstance(given, dict):
                found += _plugin(key, path, given, raw)
    return found


def _plugin(key: str, path: str, given: dict[str, Any], raw: dict[str, Any]) -> list[str]:
    (folder, named), kind = PLUGINS[key], OPEN[key]
    name = given.get(named, getattr(kind, named, None))
    if key == "methods" and name == AUTO:
        return _not_alone(path, given, raw["methods"])
    if not isinstance(name, str):
        return []
    arguments = with_arguments({key: given})[key]["arguments"]
    fields = {field.name for field in dataclasses.fields(kind)}
    return plugin_problems(folder, name, arguments, path, named, fields) or _refused(key, name, arguments, path)


def _refused(key: str, name: str, arguments: dict[str, Any], path: str) -> list[str]:
    """What a constructor refuses although its type is right. A source is not made: it would read the disk."""
    try:
        if key != "data":
            pick(PLUGINS[key][0], name)(**arguments)
    except ValueError as problem:
        return [f"{path}.{problem}"]
    return []


def _not_alone(path: str, given: dict[str, Any], methods: list[Any]) -> list[str]:
    """`auto` chooses everything, so it stands alone and takes nothing."""
    plain = dataclasses.asdict(Method(name=AUTO))  # defaults may be spelled out, as in a run's own recipe.toml
    changed = [key for key, value in given.items() if key not in plain or plain[key] != value]
    more = [f"{path}.{key}: unknown with name = {AUTO!r}, which chooses it" for key in changed]
    return more + ([f"{path}.name: {AUTO!r} stands alone; name methods or let them be chosen"] * (len(methods) > 1))


def contradictions(recipe: Recipe) -> list[str]:
    """What is wrong although every value by itself is right."""
    rules = [
        (
            recipe.cache.use == "always" and not recipe.augment.distinct_views,
            "augment.num_views: must be above 0 with cache.use = 'always'; outputs for views that never come again are "
            "not worth keeping",
        ),
        (
            recipe.cache.use == "always" and recipe.teacher.shard,
            "cache.use: can't be 'always' with teacher.shard = true; a teacher that is spread over devices is asked at "
            "every step, by all of them together",
        ),
        (not recipe.seeds, "seeds: needs at least one"),
        (
            not recipe.methods and recipe.task.weight == 0,
            "methods: empty, and task.weight is 0: nothing would be trained",
        ),
        (recipe.data.val + recipe.data.test >= 1, "data.val + data.test: must leave something to train on"),
        (recipe.data.val == 0, "data.val: must be above 0; selection needs images that the test does not use"),
        (recipe.data.test == 0, "data.test: must be above 0; without it no figure can be trusted"),
    ]
    rules += [
        (
            getattr(recipe.augment, kind) > 0 and not pick("tasks", recipe.task.name).supports_mixing,
            f"augment.{kind}: must be 0, for the labels of two images can't be made one in {recipe.task.name}",
        )
        for kind in ("mixup", "cutmix")
    ]
    teachers = [("teacher", recipe.teacher), *((f"teachers[{i}]", one) for i, one in enumerate(recipe.teachers))]
    found = [text for wrong, text in rules if wrong] + _unknown_runtimes(recipe) + _unfit_metrics(recipe)
    found += _unfit_methods(recipe)
    found += [line for path, one in teachers for line in _untrained(path, one, recipe)]
    networks: list[tuple[str, Teacher | Student]] = [*teachers, ("student", recipe.student)]
    for section, network in networks:
        for name in sorted(FROM_DATA & network.arguments.keys()):
            found.append(f"{section}.{name}: can't be set here; it follows from the data and the weights")
    return found


def _unknown_runtimes(recipe: Recipe) -> list[str]:
    """Runtimes that are neither in `export/` nor one's own."""
    named = {f"export[{i}].runtime": one.runtime for i, one in enumerate(recipe.export)}
    named |= {"deploy.runtime": recipe.deploy.runtime} if recipe.deploy else {}
    return [f"{key}: {problem}" for key, name in named.items() if (problem := not_found("export", name))]


def _unfit_metrics(recipe: Recipe) -> list[str]:
    """Metrics that can't be found, or that measure other predictions than the task's."""
    task, found = pick("tasks", recipe.task.name), []
    for i, name in enumerate(recipe.metrics):
        problem = not_found("metrics", name)
        kind = None if problem else pick("metrics", name)
        measured, labels = getattr(kind, "output_kind", None), getattr(kind, "target_kind", None)
        if kind and measured != task.output_kind:
            problem = f"{name!r} measures {measured}, but the predictions of {recipe.task.name} are {task.output_kind}"
        elif labels not in (None, task.target_kind):
            problem = f"{name!r} compares with {labels}, but {recipe.task.name} has {task.target_kind}"
        found += [f"metrics[{i}]: {problem}"] if problem else []
    return found


def _unfit_methods(recipe: Recipe) -> list[str]:
    """Methods for other predictions than the task's."""
    task, name = pick("tasks", recipe.task.name), recipe.task.name
    return [
        f"methods[{i}].name: {one.name!r} is not for networks that predict {task.output_kind}, as {name} needs; leave "
        'methods out, or write methods = "auto"'
        for i, one in enumerate(recipe.methods)
        if one.name != AUTO
        and not not_found("methods", one.name)
        and hasattr(kind := pick("methods", one.name), "supports")
        and not kind.supports(task.output_kind)
    ]


def _untrained(path: str, teacher: Teacher, recipe: Recipe) -> list[str]:
    """What leaves a teacher without useful weights, or gives a further teacher what holds for all of them."""
    unknown, task = teacher.weights == "none", recipe.task.name
    rules = [
        (
            teacher.finetune == "none" and unknown,
            f"{path}.finetune: 'none' needs {path}.weights; without weights the teacher would be noise",
        ),
        (
            teacher.finetune == "head" and unknown,
            f"{path}.finetune: 'head' needs {path}.weights; a head on random features teaches nothing",
        ),
        (
            teacher.finetune != "none" and not pick("tasks", task).has_label_loss,
            f"{path}.finetune: must be 'none', for labels teach nothing in {task}; give {path}.weights",
        ),
        *(
            (
                path != "teacher" and getattr(teacher, key) != getattr(Teacher, key),
                f"{path}.{key}: holds for all teachers, so it is set in [teacher] alone",
            )
            for key in ("precision", "shard", "combine")
        ),
    ]
    return [text for wrong, text in rules if wrong]

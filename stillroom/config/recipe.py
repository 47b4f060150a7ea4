"""Recipes are read, checked whole, and every problem is named at once.

A recipe is TOML, so nothing in it can run. What its sections hold is in `sections`; what a plug-in takes (a method's
temperature, a source's path) is read from the plug-in's own constructor.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

from stillroom.config.errors import InvalidOverride, InvalidRecipe, InvalidToml, RecipeNotFound
from stillroom.config.plugins import choices, near, pick
from stillroom.config.renamed import renamed, upgrade
from stillroom.config.schema import Compress, Data, Finetune, Method, Recipe, Student, Task, Teacher, Training
from stillroom.config.validation import build, plugin_problems

BUILT_IN = Path(__file__).parent / "recipes"

AUTO = "auto"
"""`methods = "auto"`: the methods follow from the task and the two networks, see docs/choosing.md."""

PLUGINS = {
    Data: ("data/sources", "source"),
    Task: ("tasks", "name"),
    Method: ("methods", "name"),
    Compress: ("compress", "name"),
}
"""Section -> the folder its further keys belong to, and the key that names the plug-in."""

FROM_DATA = {"classes", "channels", "size", "mean", "std", "pretrained"}
"""What every network is told by the program, and a recipe therefore not."""

SHORT: dict[str, str] = {
    "data": "source",
    "teacher": "network",
    "student": "network",
    "task": "name",
    "deploy": "profile",
}
"""`teacher = "timm/vit_base_patch16_224"` is short for `teacher.network = ...`."""


def read(source: str | Path | None = None, overrides: dict[str, Any] | None = None) -> Recipe:
    """The recipe in a file, or a built-in one by name, with `overrides` (dotted keys) laid over it.

    Raises:
        StillroomError: SR-C400 with every problem found, SR-C401 there is no such recipe, SR-C402 it is not TOML.
    """
    raw, title = ({}, "the command") if source is None else _load(source)
    for key, value in (overrides or {}).items():
        _set(raw, key, value)
    raw.setdefault("name", _slug(raw))
    return check(raw, title)


def check(raw: dict[str, Any], title: str = "the recipe") -> Recipe:
    """`raw` as a `Recipe`, or one `StillroomError` naming everything that is wrong with it."""
    raw = _listed(raw)
    problems = renamed(raw)
    raw = _expand(upgrade(raw))
    problems += _unknown_names(raw)
    recipe = build(Recipe, _sections(raw), problems)
    if recipe is not None:
        recipe = resolved(recipe)
        problems += _contradictions(recipe)
    # What is wrong with [train] is wrong with the teacher's inherited copy too, and said once.
    problems = [line for line in problems if not (line[:14] == "teacher.train." and line[8:] in problems)]
    if problems or recipe is None:
        count = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
        raise InvalidRecipe(count=count, source=title, problems="\n".join(f"  {line}" for line in problems))
    checked: Recipe = recipe
    return checked


def resolved(recipe: Recipe) -> Recipe:
    """The recipe with what follows from the rest of it written out.

    A teacher's weights, unless they are said: a library's network (`timm/...`, `torchvision/...`) comes pretrained, any
    other begins with nothing. How far it is fitted, unless it is said: a pretrained network as far as the task is used
    to (a classifier's head, a detector as a whole, an embedding not at all); a file is the user's own and is left as it
    is; a network without weights is trained whole.
    """
    usual: dict[str, Finetune] = {"pretrained": pick("tasks", recipe.task.name).finetune, "none": "all"}

    def one(teacher: Teacher) -> Teacher:
        library = "/" in teacher.network.partition(":")[0]
        weights = teacher.weights or ("pretrained" if library else "none")
        finetune = teacher.finetune or usual.get(weights, "none")
        return dataclasses.replace(teacher, weights=weights, finetune=finetune)

    return dataclasses.replace(recipe, teacher=one(recipe.teacher), teachers=tuple(map(one, recipe.teachers)))


def built_in() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in BUILT_IN.glob("*.toml"))


def parse_override(text: str) -> tuple[str, Any]:
    """`train.lr=3e-4` as ("train.lr", 3e-4). The value is TOML where it can be, and a plain string otherwise."""
    key, found, value = text.partition("=")
    if not found or not key:
        raise InvalidOverride(text=text)
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _load(source: str | Path) -> tuple[dict[str, Any], str]:
    path = Path(source)
    if not path.suffix and (BUILT_IN / f"{path}.toml").is_file():
        path = BUILT_IN / f"{path}.toml"
    if not path.is_file():
        raise RecipeNotFound(path=source, hint=near(str(source), built_in()))
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise InvalidToml(path=path, problem=problem) from problem
    return {"name": path.stem} | (upgrade(raw) if _recorded(path) else raw), str(path)


def _recorded(path: Path) -> bool:
    """Whether a recipe is a run's own, which the program wrote and may have written under older names."""
    return path.name == "recipe.toml" and any(
        next(path.parent.glob(known), None) for known in ("run.json", "seed-*/run.json")
    )


def _slug(raw: dict[str, Any]) -> str:
    """A folder name for a recipe that was only spoken: the same words give the same folder, and so resume."""

    def word(section: str, *keys: str) -> str:
        value = raw.get(section)
        if isinstance(value, dict):
            value = next((value[key] for key in keys if value.get(key)), "")
        return str(value or "").rstrip("/").rpartition("/")[2].rpartition(":")[2]

    words = [word("data", "path", "source"), word("student", "network"), "from", word("teacher", "network")]
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "-", one).strip("-.") for one in words if one) or "run"


def _set(raw: dict[str, Any], key: str, value: Any) -> None:
    """`raw[a][b] = value` for the key `a.b`; a number steps into a list."""
    *path, last = key.split(".")
    if path and isinstance(raw.get(path[0]), str) and path[0] in SHORT:
        raw[path[0]] = {SHORT[path[0]]: raw[path[0]]}
    here: Any = raw
    for part in path:
        if isinstance(here, list):
            if not (part.isdigit() and int(part) < len(here)):
                raise InvalidOverride(text=f"{key}=...")
            here = here[int(part)]
        else:
            here = here.setdefault(part, {})
    if not isinstance(here, dict):
        raise InvalidOverride(text=f"{key}=...")
    here[last] = value


def _listed(raw: dict[str, Any]) -> dict[str, Any]:
    """Short forms of lists written out: names for methods and compressions, all teachers in one list."""
    raw = dict(raw)
    teachers = raw.get("teacher")
    if isinstance(teachers, list) and teachers:
        raw["teacher"], raw["teachers"] = teachers[0], [*teachers[1:], *raw.get("teachers", [])]
    for key in ("methods", "compress"):
        named = raw.get(key)
        if isinstance(named, str):
            named = [name.strip() for name in named.split(",") if name.strip()]
        if isinstance(named, list):
            raw[key] = [{"name": one} if isinstance(one, str) else one for one in named]
    return raw


def _expand(raw: dict[str, Any]) -> dict[str, Any]:
    """Short forms of sections written out, and what a section leaves out taken from the one it inherits from."""
    raw = dict(raw)
    for key, inner in SHORT.items():
        if isinstance(raw.get(key), str):
            raw[key] = {inner: raw[key]}
    if isinstance(raw.get("teachers"), list):
        raw["teachers"] = [{"network": one} if isinstance(one, str) else one for one in raw["teachers"]]
    data = raw.get("data")
    if isinstance(data, dict) and isinstance(data.get("source"), str) and _is_path(data["source"]):
        raw["data"] = {"path": data["source"]} | data | {"source": "auto"}
    elif isinstance(data, dict) and "source" not in data and "path" in data:
        raw["data"] = data | {"source": "auto"}
    if isinstance(raw.get("seeds"), int):
        raw["seeds"] = [raw["seeds"]]
    if isinstance(raw.get("teacher"), dict):
        raw["teacher"] = _teacher(raw["teacher"], raw.get("train"))
    if isinstance(raw.get("teachers"), list):
        train = raw.get("train")
        raw["teachers"] = [_teacher(one, train) if isinstance(one, dict) else one for one in raw["teachers"]]
    if isinstance(raw.get("compress"), list):
        train = raw.get("train")
        raw["compress"] = [_compress(one, train) if isinstance(one, dict) else one for one in raw["compress"]]
    return raw


def _teacher(given: dict[str, Any], train: Any) -> dict[str, Any]:
    """A teacher, whose training inherits what it leaves out from [train]."""
    own = given.get("train", {})
    if isinstance(train, dict) and isinstance(own, dict):
        length = {"epochs", "steps"}  # one question with two answers: whoever gives one of them has answered it
        inherited = {k: v for k, v in train.items() if not (k in length and length & own.keys())}
        given = given | {"train": inherited | own}
    return given


def _compress(given: dict[str, Any], train: Any) -> dict[str, Any]:
    """A compression, whose training inherits what it leaves out from [train]: a third of its length and of its rate."""
    own, train = given.get("train", {}), train if isinstance(train, dict) else {}
    if not isinstance(own, dict):
        return given
    shorter: dict[str, Any] = {"lr": _third(train.get("lr", Training.lr))}
    if not {"epochs", "steps"} & own.keys():
        length = "steps" if "steps" in train else "epochs"
        shorter[length] = _third(train.get(length, Training.epochs))
    inherited = {k: v for k, v in train.items() if k not in ("epochs", "steps", "lr")}
    return given | {"train": inherited | shorter | own}


def _third(value: Any) -> Any:
    """A third of a number, of a whole one a whole one, at least 1; what is no number is left for the check."""
    if isinstance(value, int) and not isinstance(value, bool):
        return max(1, round(value / 3))
    return value / 3 if isinstance(value, float) else value


def _is_path(source: str) -> bool:
    """Whether `data=photos` means a place: it has a slash, or it is no source but there is a folder of that name."""
    return "/" in source or (source not in choices("data/sources") and ":" not in source and Path(source).exists())


def _sections(raw: dict[str, Any]) -> dict[str, Any]:
    """Keys that a section does not know moved into its `arguments`, where it has any."""
    kinds = {"data": Data, "task": Task, "teacher": Teacher, "student": Student}
    moved: dict[str, Any] = {
        key: _with_arguments(kind, raw[key]) for key, kind in kinds.items() if isinstance(raw.get(key), dict)
    }
    for key, kind in (("teachers", Teacher), ("methods", Method), ("compress", Compress)):
        if isinstance(raw.get(key), list):
            moved[key] = [_with_arguments(kind, one) if isinstance(one, dict) else one for one in raw[key]]
    return raw | moved


def _with_arguments(kind: Any, given: dict[str, Any]) -> dict[str, Any]:
    known = {f.name for f in dataclasses.fields(kind)} - {"arguments"}
    own = {k: v for k, v in given.items() if k in known}
    return own | {"arguments": {k: v for k, v in given.items() if k not in known}}


def _unknown_names(raw: dict[str, Any]) -> list[str]:
    """Problems with plug-ins: names that do not exist, and arguments that their constructors do not take."""
    found: list[str] = []
    places: list[tuple[str, type, Any]] = [("data", Data, raw.get("data")), ("task", Task, raw.get("task"))]
    methods: Any = raw.get("methods")
    if isinstance(methods, list):
        places += [(f"methods[{i}]", Method, one) for i, one in enumerate(methods)]
    if isinstance(raw.get("compress"), list):
        places += [(f"compress[{i}]", Compress, one) for i, one in enumerate(raw["compress"])]
    for path, kind, given in places:
        if isinstance(given, dict):
            folder, key = PLUGINS[kind]
            name = given.get(key, getattr(kind, key, None))
            if kind is Method and name == AUTO:
                found += _not_alone(path, given, methods)
            elif isinstance(name, str):
                own, arguments = {f.name for f in dataclasses.fields(kind)}, _with_arguments(kind, given)["arguments"]
                wrong = plugin_problems(folder, name, arguments, path, key, own)
                found += wrong or (_refused(folder, name, arguments, path) if kind is not Data else [])
    return found


def _refused(folder: str, name: str, arguments: dict[str, Any], path: str) -> list[str]:
    """What a constructor says against values of the right type. A source is not made: it would read the disk."""
    try:
        pick(folder, name)(**arguments)
    except ValueError as problem:
        return [f"{path}.{problem}"]
    return []


def _not_alone(path: str, given: dict[str, Any], methods: list[Any]) -> list[str]:
    """`auto` chooses everything, so it stands alone and takes nothing."""
    plain = dataclasses.asdict(Method(name=AUTO))  # defaults may be spelled out, as in a run's own recipe.toml
    changed = [key for key, value in given.items() if key not in plain or plain[key] != value]
    more = [f"{path}.{key}: unknown with name = {AUTO!r}, which chooses it" for key in changed]
    return more + ([f"{path}.name: {AUTO!r} stands alone; name methods or let them be chosen"] * (len(methods) > 1))


def _contradictions(recipe: Recipe) -> list[str]:
    """What no single value shows."""
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
            getattr(recipe.augment, kind) > 0 and not pick("tasks", recipe.task.name).mixes,
            f"augment.{kind}: must be 0, for the labels of two images can't be made one in {recipe.task.name}",
        )
        for kind in ("mixup", "cutmix")
    ]
    teachers = [("teacher", recipe.teacher), *((f"teachers[{i}]", one) for i, one in enumerate(recipe.teachers))]
    found = [text for wrong, text in rules if wrong] + _unknown_runtimes(recipe) + _unfit_metrics(recipe)
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
    return [f"{key}: {problem}" for key, name in named.items() if (problem := _not_found("export", name))]


def _unfit_metrics(recipe: Recipe) -> list[str]:
    """Metrics that can't be found, or that measure other predictions than the task's."""
    task, found = pick("tasks", recipe.task.name), []
    for i, name in enumerate(recipe.metrics):
        problem = _not_found("metrics", name)
        kind = None if problem else pick("metrics", name)
        measured, labels = getattr(kind, "output_kind", None), getattr(kind, "target_kind", None)
        if kind and measured != task.output_kind:
            problem = f"{name!r} measures {measured}, but the predictions of {recipe.task.name} are {task.output_kind}"
        elif labels not in (None, task.needs):
            problem = f"{name!r} compares with {labels}, but {recipe.task.name} has {task.needs}"
        found += [f"metrics[{i}]: {problem}"] if problem else []
    return found


def _not_found(folder: str, name: str) -> str:
    """Why there is no such plug-in; "" where there is."""
    try:
        pick(folder, name)
    except LookupError as problem:
        return str(problem.args[0])
    return ""


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
            teacher.finetune != "none" and not pick("tasks", task).taught,
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

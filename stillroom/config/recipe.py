"""Recipes are read, checked whole, and every problem is named at once.

A recipe is TOML, so nothing in it can run. What its sections hold is in `schema`; what a plug-in takes (a method's
temperature, a source's path) is read from the plug-in's own constructor.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stillroom.config import expand, rules
from stillroom.config.errors import InvalidOverride, InvalidRecipe, InvalidToml, RecipeNotFound
from stillroom.config.plugins import near, pick
from stillroom.config.renamed import renamed, upgrade
from stillroom.config.schema import AUTO, Finetune, Recipe, Teacher
from stillroom.config.validation import build, count_problems, not_found

__all__ = ["AUTO", "BUILT_IN", "built_in", "check", "parse_override", "read", "recorded", "resolved"]

BUILT_IN = Path(__file__).parent / "recipes"


def read(source: str | Path | None = None, overrides: dict[str, Any] | None = None) -> Recipe:
    """The recipe in a file, or a built-in one by name, with `overrides` (dotted keys) laid over it.

    Raises:
        StillroomError: SR-C400 with every problem found, SR-C401 there is no such recipe, SR-C402 it is not TOML.
    """
    raw, title = ({}, "the command") if source is None else _load(source)
    for key, value in (overrides or {}).items():
        _set(raw, key, value)
    raw.setdefault("name", _slug(raw))
    return check(raw, title, overridden=() if source is None else tuple(overrides or ()))


def check(raw: dict[str, Any], title: str = "the recipe", *, overridden: Iterable[str] = ()) -> Recipe:
    """`raw` as a `Recipe`, or one `InvalidRecipe` with everything that is wrong with it.

    Args:
        raw: as TOML is read.
        title: where it comes from, for the message.
        overridden: dotted keys that come from elsewhere, of which the message says so.
    """
    raw = expand.lists(raw)
    problems = renamed(raw)
    raw = expand.sections(upgrade(raw))
    recipe, found = _built(raw)
    problems += rules.plugin_sections(raw) + found
    if recipe is not None and not not_found("tasks", recipe.task.name):
        recipe = resolved(recipe)
        problems += rules.contradictions(recipe)
    if problems or recipe is None:
        keys = [re.sub(r"\.(\d+)", r"[\1]", key) for key in overridden]
        lines = "\n".join(f"  {line}{' (override)' * _comes_from(line, keys)}" for line in problems)
        raise InvalidRecipe(count=count_problems(problems), source=title, problems=lines)
    return recipe


def _built(raw: dict[str, Any]) -> tuple[Recipe | None, list[str]]:
    """The recipe, and what is wrong: each value where it is written, and not again in every table that inherits it."""
    _, written = build(Recipe, expand.with_arguments(raw))
    recipe, whole = build(Recipe, expand.with_arguments(expand.inherited(raw)))
    found = written.values + [line for line in whole.rules if line.startswith("train.")]
    for line in whole.rules:
        table, inherits, text = line.partition(".train.")
        if inherits and f"train.{text}" not in found:
            found.append(f"{line} (what {table}.train leaves out comes from [train])")
    return recipe, found if found or recipe else whole.values


def _comes_from(line: str, keys: Iterable[str]) -> bool:
    """Whether one of the keys holds the place that a problem names."""
    place = line.partition(":")[0]
    return any(place == key or place.startswith((f"{key}.", f"{key}[")) for key in keys)


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


def recorded(text: str) -> dict[str, Any]:
    """A run's own recipe as it would be written today: under today's names, with later keys at their default."""
    raw = upgrade(tomllib.loads(text))
    found, _ = build(Recipe, expand.with_arguments(raw))
    return raw if found is None else found.as_dict()


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
    if path and isinstance(raw.get(path[0]), str) and path[0] in expand.SHORT:
        raw[path[0]] = {expand.SHORT[path[0]]: raw[path[0]]}
    here: Any = raw
    for part in path:
        if isinstance(here, dict):
            here = here.setdefault(part, {})
        elif isinstance(here, list) and part.isdigit() and int(part) < len(here):
            here = here[int(part)]
        else:
            raise InvalidOverride(text=f"{key}=...")
    if not isinstance(here, dict):
        raise InvalidOverride(text=f"{key}=...")
    here[last] = value

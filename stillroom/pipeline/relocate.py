"""Paths of a finished run, opened from another working directory than it was started in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from stillroom.config.schema import Recipe, Teacher


def relocated(recipe: Recipe, directory: Path) -> Recipe:
    """The recipe with every relative path that exists below `directory`, and not here, made a path to there.

    Args:
        recipe: of the run.
        directory: in which the run was started.
    """

    def path(text: str) -> str:
        there = directory / text
        return str(there) if not Path(text).exists() and there.exists() else text

    def values(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: values(one) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [values(one) for one in value]
        return path(value) if isinstance(value, str) else value

    def teacher(one: Teacher) -> Teacher:
        return replace(one, weights=one.weights and path(one.weights))

    return replace(
        recipe,
        data=replace(recipe.data, arguments=values(recipe.data.arguments)),
        teacher=teacher(recipe.teacher),
        teachers=tuple(map(teacher, recipe.teachers)),
        student=replace(recipe.student, weights=path(recipe.student.weights)),
    )

"""Sections and the arguments of plug-ins, checked by pydantic against their types, each problem in one line.

Dataclasses are the only schema: a section is one, and of a plug-in's constructor one is made, so nothing is called.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from stillroom.config.errors import ImportedNameFailed, UnknownName
from stillroom.config.plugins import near, pick

STRICT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)
UNKNOWN, RULE = "unexpected_keyword_argument", "value_error"  # pydantic's names of two kinds of error


@dataclasses.dataclass(frozen=True)
class Problems:
    """What is wrong with a table, in lines: single values, and rules between two values of one table."""

    values: list[str] = dataclasses.field(default_factory=list)
    rules: list[str] = dataclasses.field(default_factory=list)


def build(kind: Any, given: Any) -> tuple[Any, Problems]:
    """An instance of the dataclass `kind` from plain data, or None with the problems."""
    try:
        # Strict JSON rules: 1 is a float, a list is a tuple, but "1" is no number and 1 is no bool.
        return _adapter(kind).validate_json(json.dumps(given, default=str)), Problems()
    except ValidationError as error:
        errors = error.errors(include_url=False)
    values = [one for one in errors if one["type"] != RULE]
    rules = [dotted((*one["loc"], str(one["ctx"]["error"]))) for one in errors if one["type"] == RULE]
    return None, Problems(_lines(values, kind), rules)


def plugin_problems(
    folder: str, name: str, arguments: dict[str, Any], path: str, key: str, section: Iterable[str] = ()
) -> list[str]:
    """What is wrong with calling the plug-in `name` of `folder` with these arguments. It is not called.

    Args:
        folder: a key of `plugins.CONTRACTS`.
        name: as written in the recipe.
        arguments: keyword arguments for its constructor.
        path: where the section stands in the recipe, for the messages.
        key: which key of the section holds the name.
        section: keys of the section itself, so that a slip in one of those is recognised.
    """
    if problem := not_found(folder, name):
        return [f"{path}.{key}: {problem}"]
    return call_problems(pick(folder, name), arguments, path, section)


def not_found(folder: str, name: str) -> str:
    """Why a name of a plug-in can't be used; "" where it can."""
    try:
        pick(folder, name)
    except (UnknownName, ImportedNameFailed) as problem:
        return problem.what
    return ""


def call_problems(target: Any, arguments: dict[str, Any], path: str, section: Iterable[str] = ()) -> list[str]:
    """What is wrong with `target(**arguments)`: unknown, missing or wrongly typed arguments."""
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(target).parameters.values()):
        return []
    kind = _arguments_of(target)
    try:
        _adapter(kind).validate_json(json.dumps(arguments, default=str))
    except ValidationError as error:
        return _lines(error.errors(include_url=False), kind, path, set(section) - {"arguments"})
    return []


def count_problems(problems: Sequence[str]) -> str:
    """`2 problems`, for the first line of a message."""
    return f"{len(problems)} problem{'s' * (len(problems) != 1)}"


def dotted(location: Sequence[str | int]) -> str:
    """`("methods", 0, "name")` as `methods[0].name`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@cache
def _arguments_of(target: Any) -> Any:
    """A dataclass of the keyword arguments that a call takes."""
    parameters = [p for p in inspect.signature(target).parameters.values() if p.kind is p.KEYWORD_ONLY]
    hints, fields = _hints(target), list[tuple[str, Any, Any]]()
    for one in parameters:
        default = dataclasses.field() if one.default is one.empty else dataclasses.field(default=None)
        fields.append((one.name, hints.get(one.name, Any), default))
    return dataclasses.make_dataclass("Arguments", fields, kw_only=True, namespace={"__pydantic_config__": STRICT})


def _hints(target: Any) -> dict[str, Any]:
    """Type hints of what a call takes; none where the author's own annotations can't be resolved."""
    plain_class = isinstance(target, type) and not dataclasses.is_dataclass(target)
    function: Callable[..., Any] = vars(target).get("__init__", target) if plain_class else target
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        return {}
    return {n: h for n, h in hints.items() if not isinstance(h, types.ModuleType)}


def _lines(errors: Sequence[Any], kind: Any, path: str = "", more: Iterable[str] = ()) -> list[str]:
    """One line for each place; what several members of a union expect there is joined.

    Args:
        errors: pydantic's.
        kind: the dataclass that was to be built.
        path: where it stands.
        more: names that a slip may have been meant for, beside the dataclass's own.
    """
    expected: dict[str, list[str]] = {}
    came: dict[str, str] = {}
    for error in errors:
        location, of = _resolved(kind, error["loc"])
        place = dotted((path, *location) if path else location)
        if error["type"] == UNKNOWN:
            names = {field.name for field in dataclasses.fields(of)} | set(more)
            expected[place] = [f"unknown{near(str(location[-1]), names - {'arguments'})}"]
        elif error["type"] == "missing":
            expected[place] = ["missing"]
        else:
            expected.setdefault(place, []).append(_expectation(error, of))
            came[place] = f", got {error['input']!r}"
    return [f"{place}: {_either(texts)}{came.get(place, '')}" for place, texts in expected.items()]


def _expectation(error: Any, of: Any) -> str:
    """What pydantic expected, in our words."""
    if error["type"] == "literal_error":
        return f"must be one of {error['ctx']['expected'].replace(' or ', ', ')}"
    if error["type"] == "dataclass_type":
        return "must be a table"
    if error["type"] == "tuple_type":
        return "must be a list of tables" if dataclasses.is_dataclass(of) else "must be a list"
    said: str = error["msg"].replace("Input should be", "must be")
    return said.partition(", got ")[0]


def _either(texts: list[str]) -> str:
    first, *others = dict.fromkeys(texts)
    return " or ".join([first, *(text.removeprefix("must be ") for text in others)])


def _resolved(kind: Any, location: Sequence[str | int]) -> tuple[list[str | int], Any]:
    """A place without pydantic's names for the members of a union, and the type there; of a key, the one around it."""
    place: list[str | int] = []
    for part in location:
        if isinstance(part, int):
            place.append(part)
        elif dataclasses.is_dataclass(kind):
            place.append(part)
            kind = _section(typing.get_type_hints(kind).get(part, kind))
    return place, kind


def _section(hint: Any) -> Any:
    """The dataclass in `Section`, `Section | None` or `tuple[Section, ...]`; any other hint as it is."""
    return next((inner for inner in typing.get_args(hint) if dataclasses.is_dataclass(inner)), hint)

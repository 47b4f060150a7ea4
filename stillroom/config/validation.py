"""Types from signatures: a constructor says what it takes, and nothing else has to.

Two readers: `build` makes a frozen dataclass from plain data, `plugin_problems` checks the arguments of a plug-in's
constructor. Both name every problem with its path, what was expected and what came, and run nothing of the plug-in.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from stillroom.config.plugins import near, pick


def build(kind: Any, given: Any, found: list[str], path: str = "") -> Any:
    """An instance of the dataclass `kind` from plain data, or None with the problems appended to `found`."""
    if not isinstance(given, dict):
        found.append(f"{path}: must be a table, got {given!r}")
        return None
    before, dot = len(found), f"{path}." if path else ""
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    found += _names(given, fields, [n for n, f in fields.items() if _required(f)], dot)
    values = {n: _value(hints[n], given[n], found, f"{dot}{n}") for n in fields.keys() & given.keys()}
    if len(found) > before:
        return None
    try:
        return kind(**values)
    except ValueError as problem:  # a rule between two fields
        found.append(f"{dot}{problem}")
        return None


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
    try:
        target = pick(folder, name)
    except LookupError as problem:
        return [f"{path}.{key}: {problem.args[0]}"]
    return call_problems(target, arguments, path, section)


def call_problems(target: Any, arguments: dict[str, Any], path: str, section: Iterable[str] = ()) -> list[str]:
    """What is wrong with `target(**arguments)`: unknown, missing or wrongly typed arguments."""
    parameters = {n: p for n, p in inspect.signature(target).parameters.items() if p.kind is p.KEYWORD_ONLY}
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(target).parameters.values()):
        return []
    hints = _hints(target)
    required = [n for n, p in parameters.items() if p.default is p.empty]
    found = _names(arguments, parameters, required, f"{path}.", section)
    for name in parameters.keys() & arguments.keys():
        _value(hints.get(name, Any), arguments[name], found, f"{path}.{name}")
    return found


def _names(
    given: Iterable[str], known: Iterable[str], required: Iterable[str], dot: str, section: Iterable[str] = ()
) -> list[str]:
    known, section = set(known), set(section) - {"arguments"}
    unknown = [f"{dot}{n}: unknown{near(n, known | section)}" for n in given if n not in known]
    return unknown + [f"{dot}{n}: missing" for n in required if n not in given]


def _value(hint: Any, given: Any, found: list[str], path: str) -> Any:
    """`given` as `hint` wants it; dataclasses and tuples of dataclasses are built, the rest is pydantic's."""
    inner = typing.get_args(hint)
    if isinstance(hint, types.UnionType) and dataclasses.is_dataclass(inner[0]):  # a section that may be left out
        return None if given is None else build(inner[0], given, found, path)
    if dataclasses.is_dataclass(hint):
        return build(hint, given, found, path)
    if typing.get_origin(hint) is tuple and dataclasses.is_dataclass(inner[0]):
        if not isinstance(given, (list, tuple)):
            found.append(f"{path}: must be a list of tables, got {given!r}")
            return ()
        return tuple(build(inner[0], one, found, f"{path}[{i}]") for i, one in enumerate(given))
    try:
        # Strict JSON rules: 1 is a float, a list is a tuple, but "1" is no number and 1 is no bool.
        return _adapter(hint).validate_json(json.dumps(given, default=str))
    except ValidationError as problem:
        found += _unique(f"{path}{_place(error['loc'])}: {_sentence(error, given)}" for error in problem.errors())
        return None


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True))


def _sentence(error: Any, given: Any) -> str:
    """What pydantic says, in our words: what was expected, and what came."""
    if error["type"] == "literal_error":
        return f"must be one of {error['ctx']['expected'].replace(' or ', ', ')}, got {given!r}"
    return f"{error['msg'].replace('Input should be', 'must be')}, got {error['input']!r}"


def _place(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" for part in location if isinstance(part, int))


def _unique(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(lines))


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _hints(target: Any) -> dict[str, Any]:
    """Type hints of what a call takes; none where the author's own annotations can't be resolved."""
    plain_class = isinstance(target, type) and not dataclasses.is_dataclass(target)
    function: Callable[..., Any] = vars(target).get("__init__", target) if plain_class else target
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        return {}
    return {n: h for n, h in hints.items() if not isinstance(h, types.ModuleType)}

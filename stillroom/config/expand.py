"""From a recipe as it is written to one with every section, value by value: short forms, and what is inherited."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from stillroom.config.plugins import choices
from stillroom.config.schema import Compress, Data, Method, Student, Task, Teacher, Training

SHORT: dict[str, str] = {
    "data": "source",
    "teacher": "network",
    "student": "network",
    "task": "name",
    "deploy": "profile",
}
"""`teacher = "timm/vit_base_patch16_224"` is short for `teacher.network = ...`."""

OPEN: dict[str, Any] = {
    "data": Data,
    "task": Task,
    "teacher": Teacher,
    "student": Student,
    "teachers": Teacher,
    "methods": Method,
    "compress": Compress,
}
"""Sections whose further keys are arguments of what they name."""

LENGTH = {"epochs", "steps"}  # one question with two answers: a table that gives one of them inherits neither


def lists(raw: dict[str, Any]) -> dict[str, Any]:
    """Short forms of lists written out: names for methods and compressions, all teachers in one list."""
    raw = dict(raw)
    teachers = raw.get("teacher")
    if isinstance(teachers, list) and teachers:
        more = raw.get("teachers", [])
        raw["teacher"], raw["teachers"] = teachers[0], [*teachers[1:], *more] if isinstance(more, list) else more
    for key in ("methods", "compress"):
        named = raw.get(key)
        if isinstance(named, str):
            named = [name.strip() for name in named.split(",") if name.strip()]
        if isinstance(named, list):
            raw[key] = [{"name": one} if isinstance(one, str) else one for one in named]
    return raw


def sections(raw: dict[str, Any]) -> dict[str, Any]:
    """Short forms of sections written out."""
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
    return raw


def inherited(raw: dict[str, Any]) -> dict[str, Any]:
    """Trainings of teachers and compressions with what they leave out, from [train]."""
    train = raw.get("train", {})
    if not isinstance(train, dict):
        return raw
    found = {"teacher": _teacher(raw.get("teacher"), train)}
    for key, one in (("teachers", _teacher), ("compress", _compress)):
        if isinstance(raw.get(key), list):
            found[key] = [one(table, train) for table in raw[key]]
    return raw | {key: value for key, value in found.items() if value is not None}


def with_arguments(raw: dict[str, Any]) -> dict[str, Any]:
    """Keys that a section does not have moved into its `arguments`, where it has any."""

    def one(kind: Any, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        known = {field.name for field in dataclasses.fields(kind)} - {"arguments"}
        own = {key: value for key, value in given.items() if key in known}
        return own | {"arguments": {key: value for key, value in given.items() if key not in known}}

    return raw | {
        key: [one(kind, table) for table in raw[key]] if isinstance(raw[key], list) else one(kind, raw[key])
        for key, kind in OPEN.items()
        if key in raw
    }


def _teacher(given: Any, train: dict[str, Any]) -> Any:
    own = given.get("train", {}) if isinstance(given, dict) else None
    if not isinstance(own, dict):
        return given
    rest = {key: value for key, value in train.items() if not (key in LENGTH and LENGTH & own.keys())}
    return given | {"train": rest | own}


def _compress(given: Any, train: dict[str, Any]) -> Any:
    """A third of the length and of the learning rate, and the rest as it is."""
    own = given.get("train", {}) if isinstance(given, dict) else None
    if not isinstance(own, dict):
        return given
    shorter: dict[str, Any] = {"lr": _third(train.get("lr", Training.lr))}
    if not LENGTH & own.keys():
        length = "steps" if "steps" in train else "epochs"
        shorter[length] = _third(train.get(length, Training.epochs))
    rest = {key: value for key, value in train.items() if key not in ("epochs", "steps", "lr")}
    return given | {"train": rest | shorter | own}


def _third(value: Any) -> Any:
    """Of a whole number a whole one, at least 1; what is no number is left for the check."""
    if isinstance(value, int) and not isinstance(value, bool):
        return max(1, round(value / 3))
    return value / 3 if isinstance(value, float) else value


def _is_path(source: str) -> bool:
    """Whether `data=photos` means a place: it has a slash, or it is no source but there is a folder of that name."""
    return "/" in source or (source not in choices("data/sources") and ":" not in source and Path(source).exists())

"""Validated reading of annotation files in COCO's format."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.data.sources._box_source import AnnotatedImage
from stillroom.data.sources._errors import InvalidCoco
from stillroom.data.sources._paths import printable, read_file
from stillroom.errors import StillroomError

MAX_SIDE = 2**31


def read_json(file: Path) -> dict[str, Any]:
    """The file's content, with its top-level structure checked."""
    try:
        content = json.loads(read_file(str(file), name=printable(str(file))))
    except (ValueError, RecursionError) as problem:
        raise coco_error(file, f"it is not json: {problem}") from problem
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise coco_error(file, f"there is no list called {key!r} in it")
        if not all(isinstance(entry, dict) for entry in content[key]):
            raise coco_error(file, f"an entry of {key!r} is not an object")
    return content


def read_categories(contents: Mapping[Path, dict[str, Any]]) -> dict[int, str]:
    """Category id -> name, in order of the ids."""
    names: dict[int, str] = {}
    for file, content in contents.items():
        for category in content["categories"]:
            key = _integer(file, category, "id", "category")
            name = str(category.get("name", key)).encode(errors="backslashreplace").decode()
            if names.setdefault(key, name) != name:
                raise coco_error(file, f"category {key} is {name!r} here and {names[key]!r} in another file")
    if not names:
        raise coco_error(next(iter(contents)), "there are no categories in it")
    return dict(sorted(names.items()))


def read_images(
    file: Path, content: dict[str, Any], *, folder: str, split: str, label_of: dict[int, int]
) -> list[AnnotatedImage]:
    """The file's images with their boxes.

    Args:
        file: for error messages.
        content: from `read_json`.
        folder: of the images.
        split: of the file, or "".
        label_of: category id -> label.
    """
    found: dict[int, list[tuple[list[float], int, bool]]] = {}
    for entry in content["images"]:
        key = _integer(file, entry, "id", "image")
        if key in found:
            raise coco_error(file, f"image {key} is listed twice")
        found[key] = []
    for entry in content["annotations"]:
        key = _integer(file, entry, "image_id", "annotation")
        if key not in found:
            raise coco_error(file, f"annotation {entry.get('id')} is of image {key}, which is not listed")
        label = label_of.get(_integer(file, entry, "category_id", "annotation"), -1)
        found[key].append((_box(file, entry), label, bool(entry.get("iscrowd", 0))))
    images = []
    for entry in content["images"]:
        boxes = found[entry["id"]]
        images.append(
            AnnotatedImage(
                path=os.path.join(folder, text_field(file, entry, "file_name")),
                split=split,
                boxes=np.array([box for box, _, _ in boxes], dtype=np.float64).reshape(-1, 4),
                labels=np.array([label for _, label, _ in boxes], dtype=np.int64),
                crowd=np.array([crowd for _, _, crowd in boxes], dtype=bool),
                size=_size(entry),
            )
        )
    return images


def _box(file: Path, entry: dict[str, Any]) -> list[float]:
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(type(value) in (int, float) for value in box):
        raise coco_error(file, f"annotation {entry.get('id')} has no bbox of four numbers")
    try:
        left, top, width, height = (float(value) for value in box)
    except OverflowError as problem:  # JSON integers are unbounded
        raise coco_error(file, f"annotation {entry.get('id')}: {problem}") from problem
    return [left, top, left + width, top + height]


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    sides = (entry.get("height"), entry.get("width"))
    return sides if all(type(side) is int and 0 < side < MAX_SIDE for side in sides) else None  # type: ignore[return-value]


def _integer(file: Path, entry: dict[str, Any], key: str, what: str) -> int:
    value = entry.get(key)
    if type(value) is not int:
        raise coco_error(file, f"{what} {entry.get('id')} has the {key} {value!r}, which is not an integer")
    return value


def text_field(file: Path, entry: dict[str, Any], key: str) -> str:
    """A text field of an entry, usable as a path."""
    value = entry.get(key)
    if not isinstance(value, str) or not value or "\0" in value or not _is_text(value):
        raise coco_error(file, f"image {entry.get('id')} has no {key}")
    return value


def _is_text(value: str) -> bool:
    """Whether the value can be encoded: JSON may contain lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def coco_error(file: Path, why: str) -> StillroomError:
    """SR-D120 for this file."""
    return InvalidCoco(path=printable(str(file)), why=why)

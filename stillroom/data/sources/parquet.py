"""Parquet files in the Hugging Face image layout: a column `image` {bytes, path} and a column `label`.

Splits are taken from the file names (`train-00000-of-00004.parquet`, `test/0000.parquet`); if no name contains one, the
data has no splits. Class names come from the ClassLabel in the `huggingface` metadata, else text labels are their own
names, else the integers are. Labels are read at once; images by row group on request, and cached as encoded bytes. A
row without bytes is read from its path, relative to the folder of the parquet files.
"""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.config.plugins import near
from stillroom.data.errors import NoImages, NotAnImage, UnknownLayout
from stillroom.data.sources._errors import DataPermissionDenied, InvalidParquet
from stillroom.data.sources._paths import existing_path, printable, read_file, require_inside
from stillroom.data.sources.source import detect_channels
from stillroom.errors import StillroomError
from stillroom.types import IntArray

SPLIT = re.compile(r"^(train|test|validation|valid|val|dev)(?![a-z])", re.IGNORECASE)


class Parquet:
    """Images in parquet files.

    Args:
        path: one file, or a folder that is searched for them.
        image: name of the column of images: structs {bytes, path}, or bytes.
        label: name of the column of labels: integers or text.
        allow_outside: whether a path in a row may lead out of the folder.
        channels: 1 or 3; None: 1 if a sample of a hundred images is grey, else 3.

    Raises:
        StillroomError: SR-D101 no such path, SR-D108 no rows, SR-D109 no parquet files, SR-D117 not parquet or not this
            layout, SR-S201 a row's path leads outside.
    """

    def __init__(
        self,
        *,
        path: str,
        image: str = "image",
        label: str = "label",
        allow_outside: bool = False,
        channels: int | None = None,
    ):
        self.path, self.image, self.label, self.allow_outside = path, image, label, allow_outside
        found = existing_path(path)
        self._files = _files(found)
        if not self._files:
            raise UnknownLayout(path=printable(path), why="there is no *.parquet in it")
        self._root = os.path.realpath(found if found.is_dir() else found.parent)
        self._open = [_open(file, image=image, label=label) for file in self._files]
        rows = [[file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)] for file in self._open]
        self._groups = [(f, g) for f, sizes in enumerate(rows) for g in range(len(sizes))]
        self._starts = np.cumsum([0, *(size for sizes in rows for size in sizes)])
        self._ends = np.cumsum([0, *(sum(sizes) for sizes in rows)])
        self._row_groups: dict[int, Any] = {}
        self._lock = threading.Lock()
        if not self._starts[-1]:
            raise NoImages(path=printable(path), why="the files have no rows")
        if not allow_outside:
            self._check_paths()
        self.classes, self.labels = self._read_labels()
        self.splits = self._read_splits()
        self.channels = channels or detect_channels(self.read, self._first_group())

    @staticmethod
    def matches(path: Path) -> bool:
        """Whether it is a parquet file or a folder that contains some."""
        return bool(_files(path)) and (path.is_dir() or path.suffix == ".parquet")

    def name(self, item: int) -> str:
        """`FOLDER/train-00000-of-00001.parquet row 17`."""
        file = int(np.searchsorted(self._ends, item, side="right")) - 1
        return printable(f"{self._files[file]} row {item - int(self._ends[file])}")

    def read(self, item: int) -> bytes:
        """The encoded image."""
        group = self._group(item)
        with self._lock:  # several decoding threads share a file handle
            if group not in self._row_groups:
                file, within = self._groups[group]
                self._row_groups[group] = self._open[file].read_row_group(within, columns=[self.image]).column(0)
        value = self._row_groups[group][item - int(self._starts[group])].as_py()
        if isinstance(value, dict):
            if value.get("bytes") is None and value.get("path"):
                return self._from_path(item, value["path"])
            value = value.get("bytes")
        if value is None:
            raise NotAnImage(path=self.name(item), bytes=0, why="the row has neither bytes nor a path")
        return value

    def _group(self, item: int) -> int:
        return int(np.searchsorted(self._starts, item, side="right")) - 1

    def _first_group(self) -> IntArray:
        """Items of the first row group of train: detecting channels reads neither all files nor the test split."""
        first = int(self.splits["train"][0]) if "train" in self.splits else 0
        group = self._group(first)
        return np.arange(self._starts[group], self._starts[group + 1])

    def _check_paths(self) -> None:
        """Check the paths of all rows without bytes at once, rather than when the test split is opened."""
        for group, (file, within) in enumerate(self._groups):
            if not _may_lack_bytes(self._open[file].metadata.row_group(within), f"{self.image}.bytes"):
                continue
            for row, value in enumerate(self._open[file].read_row_group(within, columns=[self.image]).column(0)):
                if value["bytes"].as_py() is None and value["path"].as_py():
                    self._check_path(int(self._starts[group]) + row, value["path"].as_py())

    def _check_path(self, item: int, path: str) -> str:
        full = os.path.join(self._root, path)
        if not self.allow_outside:
            require_inside(full, root=self._root, shown=f"{self.name(item)} {path!r}")
        return full

    def _from_path(self, item: int, path: str) -> bytes:
        return read_file(self._check_path(item, path), name=f"{self.name(item)} {printable(path)}")

    def _read_labels(self) -> tuple[tuple[str, ...], IntArray]:
        """Class names and labels [N]; -1 for a row without label."""
        import pyarrow as pa

        columns = [file.read(columns=[self.label]).column(0) for file in self._open]
        kinds = {str(column.type) for column in columns}
        if all(pa.types.is_integer(column.type) or pa.types.is_boolean(column.type) for column in columns):
            values = np.concatenate([column.cast(pa.int64()).fill_null(-1).to_numpy() for column in columns])
            names = {tuple(named) for file in self._open if (named := _class_names(file, self.label))}
            if len(names) > 1:
                raise self._invalid("the files name their classes differently")
            return _without_gaps(values) if not names else (names.pop(), values)
        if all(pa.types.is_string(column.type) or pa.types.is_large_string(column.type) for column in columns):
            texts = [text for column in columns for text in column.to_pylist()]
            classes = sorted({text for text in texts if text is not None})
            label_of = {name: label for label, name in enumerate(classes)}
            return tuple(classes), np.array([label_of.get(text, -1) for text in texts], dtype=np.int64)
        raise self._invalid(f"column {self.label!r} is of type {' and '.join(sorted(kinds))}")

    def _read_splits(self) -> dict[str, IntArray]:
        """Split -> items, from the file names; if some files have a split, the others belong to train."""
        names = [_split_of(file) for file in self._files]
        if not any(names):
            return {}
        parts: dict[str, list[IntArray]] = {}
        for file, name in enumerate(names):
            parts.setdefault(name or "train", []).append(np.arange(self._ends[file], self._ends[file + 1]))
        return {name: np.concatenate(items) for name, items in parts.items()}

    def _invalid(self, why: str) -> StillroomError:
        return InvalidParquet(path=printable(self.path), why=why)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*.parquet") if not file.name.startswith(".") and file.is_file())
    return [path] if path.is_file() else []


def _open(file: Path, *, image: str, label: str) -> Any:
    """The opened file, after a check of its columns."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        opened = ParquetFile(file)
    except PermissionError as problem:
        raise DataPermissionDenied(path=printable(str(file))) from problem
    except (ArrowException, OSError) as problem:
        raise InvalidParquet(path=printable(str(file)), why=f"pyarrow: {problem}") from problem
    names = opened.schema_arrow.names
    for option, name in (("image", image), ("label", label)):
        if name not in names:
            why = f"no column {name!r} (data.{option}){near(name, names)}"
            raise InvalidParquet(path=printable(str(file)), why=why)
    return opened


def _may_lack_bytes(group: Any, column: str) -> bool:
    """Whether rows of the group may have no bytes; without statistics, judged by the size of the column."""
    for chunk in (group.column(i) for i in range(group.num_columns)):
        if chunk.path_in_schema == column:
            statistics = chunk.statistics
            if statistics is not None and statistics.has_null_count:
                return statistics.null_count > 0
            return chunk.total_uncompressed_size < group.num_rows * 50  # fewer bytes than any image has
    return False


def _class_names(file: Any, label: str) -> list[str]:
    """The names of a ClassLabel in the `huggingface` metadata; empty if there is none."""
    try:
        stored = json.loads((file.schema_arrow.metadata or {})[b"huggingface"])
        return [str(name) for name in stored["info"]["features"][label]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _without_gaps(values: IntArray) -> tuple[tuple[str, ...], IntArray]:
    """The integers that occur, in order, as classes; negative ones are kept, for `inspect` to report."""
    used = np.unique(values[values >= 0])
    labels = np.where(values < 0, values, np.searchsorted(used, values))
    return tuple(str(value) for value in used), labels


def _split_of(file: Path) -> str | None:
    for match in (SPLIT.match(file.name), SPLIT.fullmatch(file.parent.name)):
        if match:
            return match[1].lower() if match[1].lower() in ("train", "test") else "val"
    return None

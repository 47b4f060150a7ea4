"""Atomic writes: a reader sees the old file or the new one. Temporary file in the same folder, fsync, rename, fsync."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stillroom.errors import StillroomError
from stillroom.io.errors import DiskFull

TEMPORARY = ".tmp-"
"""Prefix of unfinished files and folders; `remove_unfinished` deletes those that a killed process left."""


def write_file(path: Path, content: bytes | str) -> Path:
    """Write `content` to `path` completely or not at all.

    Raises:
        DiskFull: SR-R501 the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    with atomic_write(path) as temp:
        temp.write_bytes(data)
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write `value` as JSON; NaN and infinity, which JSON lacks, become null."""
    return write_file(path, json.dumps(replace_non_finite(value), indent=2, ensure_ascii=False) + "\n")


def replace_non_finite(value: Any) -> Any:
    """`value` with every NaN and infinity replaced by None."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: replace_non_finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [replace_non_finite(item) for item in value]
    return value


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which replaces `path` if the block ends without an exception.

    It is in the same folder, because a rename is atomic only within one file system.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        with disk_full_errors(path):
            yield temp
            fsync(temp)
            os.replace(temp, path)
            fsync(path.parent)
    finally:
        temp.unlink(missing_ok=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` for intermediate files, deleted at the end of the block in any case.

    It is beside `path` because that disk has to have space for such files, and `remove_unfinished` cleans that folder
    after a kill.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk_full_errors(path), TemporaryDirectory(prefix=f"{TEMPORARY}{os.getpid()}-", dir=path.parent) as folder:
        yield Path(folder)


def link_or_copy(source: Path, path: Path) -> None:
    """Make `path` a hard link to `source`, or a copy where the file system has no hard links.

    For files that are only ever replaced, never modified in place.
    """
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)


def commit_folder(path: Path, fill: Callable[[Path], None]) -> Path:
    """Create the folder `path` with the files that `fill` writes, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    shutil.rmtree(temp, ignore_errors=True)
    temp.mkdir()
    try:
        with disk_full_errors(path):
            fill(temp)
            for file in temp.iterdir():
                fsync(file)
            fsync(temp)
            shutil.rmtree(path, ignore_errors=True)
            os.replace(temp, path)
            fsync(path.parent)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    return path


def remove_unfinished(folder: Path) -> None:
    """Delete the unfinished files and folders of interrupted writers below `folder`."""
    for path in list(folder.rglob(f"{TEMPORARY}*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_full_errors(path: Path) -> Iterator[None]:
    """Turn the error of a full disk into SR-R501. Some libraries wrap the OSError, so its text is checked too."""
    try:
        yield
    except StillroomError:
        raise  # converted already, possibly by a nested call of this function
    except Exception as problem:
        code = getattr(problem, "errno", None)
        full = code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if full or "No space left" in str(problem) or "File too large" in str(problem):
            free = shutil.disk_usage(path.parent).free / 1e6
            raise DiskFull(path=path, free=f"{free:.0f}", problem=problem) from problem
        raise

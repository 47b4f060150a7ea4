"""Writing so that a reader sees the old file or the new one, never a part: temp beside it, fsync, replace, fsync."""

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
"""Every unfinished file or folder begins with this; `sweep` removes what a killed process left."""


def write_file(path: Path, content: bytes | str) -> Path:
    """`path` holds `content`, whole, or is as it was before.

    Raises:
        DiskFull: SR-R501 the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    with atomic_write(path) as temp:
        temp.write_bytes(data)
    return path


def write_json(path: Path, value: Any) -> Path:
    """`path` holds `value` as JSON; what is not finite becomes null, because JSON has no NaN."""
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
    """A path in the same folder to write a file to; it takes `path`'s place when the block ends well.

    The same folder, because a rename is atomic only inside one file system.
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
    """A folder beside `path` for what is needed only while `path` is made; it vanishes however the block ends.

    Beside it, because that disk is known to be large enough for such files, and `sweep` looks there after a kill.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk_full_errors(path), TemporaryDirectory(prefix=f"{TEMPORARY}{os.getpid()}-", dir=path.parent) as folder:
        yield Path(folder)


def link_or_copy(source: Path, path: Path) -> None:
    """`path` is another name of the file at `source`; a copy of it where the file system has no second names.

    For files that are only ever replaced, never written into.
    """
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)


def commit_folder(path: Path, fill: Callable[[Path], None]) -> Path:
    """`path` is a folder that `fill` filled, whole, or does not exist."""
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
    """Remove what an interrupted writer left below `folder`."""
    for left in list(folder.rglob(f"{TEMPORARY}*")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Wait until the system has put the file or the folder's entries on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_full_errors(path: Path) -> Iterator[None]:
    """A full disk, told as one. Some libraries wrap the system's error, so the text is looked at too."""
    try:
        yield
    except StillroomError:
        raise  # told already, perhaps by this function inside itself
    except Exception as problem:
        code = getattr(problem, "errno", None)
        full = code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if full or "No space left" in str(problem) or "File too large" in str(problem):
            free = shutil.disk_usage(path.parent).free / 1e6
            raise DiskFull(path=path, free=f"{free:.0f}", problem=problem) from problem
        raise

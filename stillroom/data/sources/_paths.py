"""Files and paths of data sets: reading, printing, and the check that a path stays inside the data's folder."""

from __future__ import annotations

from os.path import commonpath, realpath
from pathlib import Path

from stillroom.config.plugins import near
from stillroom.data.errors import UnreadableImage
from stillroom.data.sources._errors import DataNotFound, DataPermissionDenied, PathOutsideData


def existing_path(path: str) -> Path:
    """The path, if it exists.

    Raises:
        DataNotFound: SR-D101, with the most similar name in the same folder.
    """
    found = Path(path).expanduser()
    if found.exists():
        return found
    siblings = [p.name for p in found.parent.iterdir()] if found.parent.is_dir() else []
    hint = near(found.name, siblings) if siblings else f"; nor is there a folder {printable(str(found.parent))}"
    raise DataNotFound(path=printable(path), hint=hint if len(hint) < 400 else "")


def printable(path: str) -> str:
    r"""The path with bytes that are not UTF-8 written as \xNN, so that it can be printed, logged and sent as JSON."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_file(path: str, *, name: str) -> bytes:
    """The content of a file.

    Raises:
        StillroomError: SR-D104 not permitted, SR-D102 missing or a read error.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except PermissionError as problem:
        raise DataPermissionDenied(path=name) from problem
    except OSError as problem:
        raise UnreadableImage(path=name, why=f"reading it failed: {problem.strerror}") from problem


def require_inside(path: str, *, root: str, shown: str) -> None:
    """Check that `path`, with all links resolved, lies inside `root` (a real path).

    Raises:
        PathOutsideData: SR-S201.
    """
    target = realpath(path)
    if commonpath([target, root]) != root:
        raise PathOutsideData(path=shown, target=printable(target), root=printable(root))

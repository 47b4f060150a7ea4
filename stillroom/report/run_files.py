"""Files of a run folder that report and card refer to."""

from __future__ import annotations

import hashlib
from pathlib import Path

from stillroom.report.run_data import ModelResult, RunData


def digests(run: RunData) -> list[tuple[str, int, str]]:
    """(path, bytes, sha256) of the student's weights and of every exported file that exists."""
    found = []
    files = [name for file in run.files for name in (file.path, *companions(file))]
    for name in ["student.safetensors", *files]:
        file = file_inside(run.path, name)
        if file is not None:
            with file.open("rb") as stream:
                found.append((name, file.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()))
    return found


def companions(file: ModelResult) -> list[str]:
    """The paths of the files that an exported file needs beside it, such as OpenVINO's weights."""
    suffixes = file.runtime.suffixes if file.runtime else ()
    path = file.path
    return [path.removesuffix(suffixes[0]) + other for other in suffixes[1:] if path.endswith(suffixes[0])]


def file_inside(folder: Path, name: str) -> Path | None:
    """The file `name` of `folder`; None if it does not exist or lies outside of the folder."""
    try:
        file = (folder / name).resolve()
        return file if name and file.is_relative_to(folder.resolve()) and file.is_file() else None
    except (OSError, ValueError):  # a name that the file system rejects
        return None

"""Files of a run folder that report and card refer to."""

from __future__ import annotations

import hashlib
from pathlib import Path

from stillroom.report.run_data import RunData


def digests(run: RunData) -> list[tuple[str, int, str]]:
    """(path, bytes, sha256) of the student's weights and of every exported file that exists."""
    found = []
    files = [model.path for model in run.files]
    weights = [f"{path.removesuffix('.xml')}.bin" for path in files if path.endswith(".xml")]  # OpenVINO's
    for name in ["student.safetensors", *files, *weights]:
        file = file_inside(run.path, name)
        if file is not None:
            with file.open("rb") as stream:
                found.append((name, file.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()))
    return found


def file_inside(folder: Path, name: str) -> Path | None:
    """The file `name` of `folder`; None if it does not exist or lies outside of the folder."""
    try:
        file = (folder / name).resolve()
        return file if name and file.is_relative_to(folder.resolve()) and file.is_file() else None
    except (OSError, ValueError):  # a name that the file system rejects
        return None

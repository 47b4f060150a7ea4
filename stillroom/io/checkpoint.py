"""A moment of training as a folder: `{part}.safetensors` for tensors, `state.json` for the rest.

A checkpoint is committed whole or not at all, and reading one runs no code: no pickle anywhere.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from stillroom.io.files import commit_folder, write_json

Parts = dict[str, dict[str, Tensor]]
KEPT = 2  # checkpoints a stage keeps: the newest, and one behind it in case somebody copies the newest away


def save(folder: Path, step: int, parts: Parts, scalars: dict[str, Any]) -> Path:
    """Write `folder/step-000420` and drop the oldest ones."""

    def fill(temp: Path) -> None:
        for name, tensors in parts.items():
            save_tensors(tensors, temp / f"{name}.safetensors")
        write_json(temp / "state.json", scalars)

    path = commit_folder(folder / f"step-{step:06d}", fill)
    for old in list_checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def load(path: Path) -> tuple[Parts, dict[str, Any]]:
    """What `save` was given."""
    parts = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
    return parts, json.loads((path / "state.json").read_text(encoding="utf-8"))


def list_checkpoints(folder: Path) -> list[Path]:
    """The committed checkpoints of a stage, oldest first."""
    return sorted(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Tensors as safetensors: in plain memory order, and two names of one tensor as two tensors."""
    save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, path, metadata)
    _order_header(path)


def _order_header(path: Path) -> None:
    """Sort the header's metadata, which the library writes in a random order: equal contents make equal files."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:  # it may be padded with blanks, but never moved
            file.seek(8)
            file.write(text.ljust(length))

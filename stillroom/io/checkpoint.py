"""Training checkpoints as folders: `{part}.safetensors` for tensors, `state.json` for everything else.

A checkpoint is written completely or not at all. Reading one runs no code, because it contains no pickle.
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
KEPT = 2  # checkpoints kept per stage: the newest, and the one before it in case the newest is moved away


def save(folder: Path, step: int, parts: Parts, scalars: dict[str, Any]) -> Path:
    """Write `folder/step-000420` and delete all but the newest `KEPT` checkpoints."""

    def fill(temp: Path) -> None:
        for name, tensors in parts.items():
            save_tensors(tensors, temp / f"{name}.safetensors")
        write_json(temp / "state.json", scalars)

    path = commit_folder(folder / f"step-{step:06d}", fill)
    for old in list_checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def load(path: Path) -> tuple[Parts, dict[str, Any]]:
    """The parts and scalars of a checkpoint folder, as given to `save`."""
    parts = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
    return parts, json.loads((path / "state.json").read_text(encoding="utf-8"))


def list_checkpoints(folder: Path) -> list[Path]:
    """The committed checkpoints of a stage, oldest first."""
    return sorted(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, made contiguous; a tensor with two names is stored twice."""
    save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, path, metadata)
    _order_header(path)


def _order_header(path: Path) -> None:
    """Sort the header's metadata, which the library writes in random order, so that equal contents give equal files."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:  # the header may be padded with spaces, but the data can't be moved
            file.seek(8)
            file.write(text.ljust(length))

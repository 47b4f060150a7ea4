"""A few images to look at, those on which the networks disagree first, as thumbnails with everybody's logits."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stillroom.files import temporary, write_json
from stillroom.types import Batch, Output

EACH = 12  # images of a kind
SIDE = 96  # pixels: small ones are enlarged without smoothing, so that they are seen as the networks see them


class Samples:
    """Collects while the test split is read, so that no image has to be read again.

    Args:
        speakers: names of all networks and files, whose outputs come one after the other for each batch.
    """

    def __init__(self, speakers: Collection[str]):
        self._awaited = set(speakers)
        self._heard: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._kept: list[dict[str, Any]] = []

    def keep(self, name: str, batch: Batch, output: Output) -> None:
        """One speaker's word on one batch; when all have spoken, the telling images are kept."""
        self._heard[name] = output.pred.float().cpu()
        if set(self._heard) == self._awaited:
            for kind, rows in _kinds(self._heard, batch.target.cpu()).items():
                for row in rows.nonzero().flatten().tolist():
                    if self._counts.get(kind, 0) >= EACH:
                        break
                    self._counts[kind] = self._counts.get(kind, 0) + 1
                    self._add(row, batch)
            self._heard = {}

    def write(self, folder: Path, classes: tuple[str, ...], name: Callable[[int], str]) -> None:
        """`folder/0000.png ...` and `folder/probe.json`.

        Args:
            folder: made if it is not there.
            classes: in label order.
            name: what an image is called, from its key.
        """
        images = []
        for number, kept in enumerate(self._kept):
            file = f"{number:04d}.png"
            with temporary(folder / file) as temp:
                _thumbnail(kept["pixels"]).save(temp, format="PNG")
            facts = {"file": file, "name": name(kept["key"]), "target": kept["target"], "logits": kept["logits"]}
            images.append(facts)
        write_json(folder / "probe.json", {"classes": list(classes), "images": images})

    def _add(self, row: int, batch: Batch) -> None:
        key = int(batch.keys[row])
        if all(kept["key"] != key for kept in self._kept):
            logits = {name: pred[row].tolist() for name, pred in self._heard.items()}
            image = {"key": key, "pixels": batch.images[row].cpu(), "target": int(batch.target[row]), "logits": logits}
            self._kept.append(image)


def _kinds(heard: dict[str, Tensor], target: Tensor) -> dict[str, Tensor]:
    """Kind of interest -> which images of the batch are of it, [B] bool."""
    right = {name: pred.argmax(1) == target for name, pred in heard.items()}
    student = right["student"]
    files = [name for name in heard if name not in ("teacher", "baseline", "student")]
    pairs = {f"{name} differs": heard[name].argmax(1) != heard["student"].argmax(1) for name in files}
    if "teacher" in right:
        pairs |= {"teacher only": right["teacher"] & ~student, "student only": student & ~right["teacher"]}
        pairs["neither"] = ~student & ~right["teacher"]
    if "baseline" in right:
        pairs |= {"taught only": student & ~right["baseline"], "untaught only": right["baseline"] & ~student}
    return pairs | {"all": torch.ones_like(student)}


def _thumbnail(pixels: Tensor) -> Image.Image:
    """[C, H, W] in 0..1 as a picture of `SIDE` pixels."""
    levels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(np.squeeze(levels, 2) if levels.shape[2] == 1 else levels)
    how = Image.Resampling.NEAREST if max(picture.size) < SIDE else Image.Resampling.LANCZOS
    return picture.resize((SIDE, SIDE), how)

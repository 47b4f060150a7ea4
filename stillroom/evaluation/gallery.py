"""A few sample images for the report, above all those on which the networks disagree, with every output."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stillroom.io.files import atomic_write, write_json
from stillroom.tasks.task import Task
from stillroom.types import Batch, Output

EACH = 12  # images of a kind
SIDE = 96  # pixels: small ones are enlarged without smoothing, so that they are seen as the networks see them
DENSE = 240  # pixels at most, where something is drawn on the image: enough to see a small object, and what missed it
DIGITS = 5  # of a box or a vector: more than can be drawn


class SampleGallery:
    """Collects while the test split is read, so that no image has to be read again.

    For each kind of interest the `EACH` images with the largest gap are kept, the earlier one of two equal gaps:

        teacher only, student only   by how much one scores above the other
        student over baseline, baseline over student   the same of student and baseline
        neither                      how far the better of teacher and student is from 1
        NAME differs                 how unlike a file's answer is to the student's
        all                          the first ones

    Args:
        speakers: names of all networks and files, whose answers come one after the other for each batch.
        task: says how alike two answers are, and what of them is drawn.
    """

    def __init__(self, speakers: Collection[str], task: Task):
        self._awaited, self._task = set(speakers), task
        self._heard: dict[str, Output] = {}
        self._scores: dict[str, Tensor] = {}
        self._first = 0  # place of the batch's first image in the pass
        self._best: dict[str, list[tuple[float, int]]] = {}  # kind -> (-gap, place), the best first
        self._kept: dict[int, dict[str, Any]] = {}  # place -> what will be written

    def keep(self, name: str, batch: Batch, answer: Output, score: Tensor) -> None:
        """One speaker's answers to one batch and how right they are; when all have spoken, telling images are kept."""
        self._heard[name], self._scores[name] = answer, score.cpu()
        if set(self._heard) != self._awaited:
            return
        scores, apart = self._scores, self._apart()
        for kind, gaps in _gaps(scores, apart).items():
            # Rounded, so that what differs by rounding only counts as equal, and the earlier image stays.
            gaps = gaps.nan_to_num(nan=0.0).double().round(decimals=6)
            found = [(-float(gaps[row]), self._first + row) for row in (gaps > 0).nonzero().flatten().tolist()]
            self._best[kind] = sorted(self._best.get(kind, []) + found)[:EACH]
        wanted = {place for best in self._best.values() for _, place in best}
        self._kept = {place: image for place, image in self._kept.items() if place in wanted}
        for place in sorted(place for place in wanted if place >= self._first):
            self._add(place, batch, scores, apart)
        self._first += len(batch)
        self._heard, self._scores = {}, {}

    def write(self, folder: Path, classes: tuple[str, ...], name: Callable[[int], str]) -> None:
        """`folder/0000.png ...` and `folder/probe.json`.

        Args:
            folder: made if it is not there.
            classes: in label order.
            name: what an image is called, from its key.
        """
        images = []
        for number, (_, kept) in enumerate(sorted(self._kept.items())):
            facts = {"file": f"{number:04d}.png", "name": name(kept["key"]), "key": kept["key"]}
            _save(folder / facts["file"], kept["picture"])
            facts["truth"] = _written(kept["truth"], folder / f"{number:04d}-truth.png")
            facts["answers"] = {
                speaker: _written(sketch, folder / f"{number:04d}-{speaker}.png")
                for speaker, sketch in kept["answers"].items()
            }
            images.append(facts | {"scores": kept["scores"], "apart": kept["apart"]})
        write_json(folder / "probe.json", {"classes": list(classes), "images": images})

    def _apart(self) -> dict[str, Tensor]:
        """How unlike each file's answers are to the student's, [B] in 0..1."""
        files = [name for name in self._heard if name not in ("teacher", "baseline", "student")]
        student = self._heard.get("student")
        if student is None:
            return {}
        return {name: 1 - self._task.same(self._heard[name], student).float().cpu() for name in files}

    def _add(self, place: int, batch: Batch, scores: Mapping[str, Tensor], apart: Mapping[str, Tensor]) -> None:
        row = place - self._first
        key = int(batch.keys[row])
        if any(kept["key"] == key for kept in self._kept.values()):
            return
        truth = dict(self._task.truth(batch, row))
        side = tuple(batch.images.shape[-2:])
        answers = {name: _in_shares(self._task.sketch(answer, row), *side) for name, answer in self._heard.items()}
        dense = any({"boxes", "mask"} & sketch.keys() for sketch in (truth, *answers.values()))
        picture = thumbnail(batch.images[row].cpu(), dense=dense)
        self._kept[place] = {
            "key": key,
            "picture": picture,
            "truth": _small(truth, picture.size),
            "answers": {name: _small(sketch, picture.size) for name, sketch in answers.items()},
            "scores": {name: float(score[row]) for name, score in scores.items()},
            "apart": {name: float(gap[row]) for name, gap in apart.items()},
        }


def thumbnail(pixels: Tensor, *, dense: bool) -> Image.Image:
    """[C, H, W] in 0..1 as a picture: a square of `SIDE` pixels; with `dense` its own size, within `SIDE`..`DENSE`."""
    levels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(np.squeeze(levels, 2) if levels.shape[2] == 1 else levels)
    longest = max(picture.size)
    side = min(max(longest, SIDE), DENSE)
    size = tuple(max(1, round(part * side / longest)) for part in picture.size) if dense else (SIDE, SIDE)
    how = Image.Resampling.NEAREST if longest < SIDE else Image.Resampling.LANCZOS
    return picture if size == picture.size else picture.resize((size[0], size[1]), how)


def _gaps(scores: Mapping[str, Tensor], apart: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Kind of interest -> how much each image of the batch is of it, [B]; not at all at 0 and below."""
    some = next(iter(scores.values()))
    gaps = {"all": torch.ones_like(some)} | {f"{name} differs": gap for name, gap in apart.items()}
    student, teacher, baseline = (scores.get(name) for name in ("student", "teacher", "baseline"))
    if student is not None and teacher is not None:
        gaps |= {"teacher only": teacher - student, "student only": student - teacher}
        gaps["neither"] = 1 - torch.maximum(student, teacher)
    if student is not None and baseline is not None:
        gaps |= {"student over baseline": student - baseline, "baseline over student": baseline - student}
    return gaps


def _in_shares(sketch: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    """A sketch of an answer with its boxes, which are in pixels there, in shares of the image."""
    if "boxes" not in sketch:
        return dict(sketch)
    scale = (width, height, width, height)
    boxes = [[end / whole for end, whole in zip(box[:4], scale, strict=True)] + box[4:] for box in sketch["boxes"]]
    return {**sketch, "boxes": boxes}


def _small(sketch: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """A sketch with its mask as a picture as large as the thumbnail: many whole ones would fill the memory."""
    if "mask" not in sketch:
        return sketch
    mask = Image.fromarray(np.ascontiguousarray(np.asarray(sketch["mask"], dtype=np.uint8)))
    return sketch | {"mask": mask.resize(size, Image.Resampling.NEAREST)}


def _written(sketch: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """A sketch as JSON holds it, its mask in `file`."""
    stored = {name: _rounded(value) if name in ("boxes", "vector") else value for name, value in sketch.items()}
    if "mask" in stored:
        _save(file, stored["mask"])
        stored["mask"] = file.name
    return stored


def _rounded(values: Any) -> Any:
    return [_rounded(value) for value in values] if isinstance(values, (list, tuple)) else round(values, DIGITS)


def _save(file: Path, picture: Image.Image) -> None:
    with atomic_write(file) as temp:
        picture.save(temp, format="PNG")

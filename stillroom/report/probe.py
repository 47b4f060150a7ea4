"""`samples/probe.json` as values: the images that a run kept to look at, and what everybody said about them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from stillroom.report.format import number


@dataclass(frozen=True)
class Shot:
    """One image. Whatever the file spoils is missing here.

    Attributes:
        file: its picture in `samples/`.
        truth: what is known of it: any of `class`, `boxes`, `mask`.
        answers: speaker -> its answer: any of `logits`, `boxes`, `mask`, `vector`.
        scores: speaker -> how right it is, in 0..1.
        apart: file -> how unlike its answer is to the student's, in 0..1.
    """

    file: str
    name: str
    truth: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    apart: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> int | None:
        """The true class, where there is one."""
        found = self.truth.get("class")
        return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


@dataclass(frozen=True)
class Box:
    """A box in shares of the image, inside of it, left before right and top before bottom."""

    left: float
    top: float
    right: float
    bottom: float
    label: int
    score: float


def shots(probe: dict[str, Any]) -> list[Shot]:
    """The images in the order in which they were seen."""
    images = probe.get("images")
    return [_shot(image) for image in images if isinstance(image, dict)] if isinstance(images, list) else []


def softmax(logits: Any) -> list[float] | None:
    """Logits as shares that sum to 1; None unless all of them are finite numbers."""
    finite = vector(logits)
    if finite is None:
        return None
    weights = [math.exp(value - max(finite)) for value in finite]
    return [weight / sum(weights) for weight in weights]


def vector(found: Any) -> list[float] | None:
    """Finite numbers, at least one; else None."""
    values = [number(value) for value in found] if isinstance(found, list) else []
    finite = [value for value in values if value is not None]
    return finite if finite and len(finite) == len(values) else None


def boxes(found: Any, *, least: float, most: int = 100) -> list[Box]:
    """The boxes of score `least` and more, the surest first; what is no box, or has no area, is left out."""
    rows = [vector(row) for row in found] if isinstance(found, list) else []
    read = []
    for row in rows:
        if row is not None and len(row) == 6 and row[4] >= 0 and row[5] >= least:
            left, top, right, bottom = (min(max(end, 0.0), 1.0) for end in row[:4])
            if left < right and top < bottom:
                read.append(Box(left, top, right, bottom, int(row[4]), row[5]))
    return sorted(read, key=lambda box: -box.score)[:most]


def _shot(image: dict[str, Any]) -> Shot:
    image = _renewed(image)
    answers = {name: sketch for name, sketch in _table(image.get("answers")).items() if isinstance(sketch, dict)}
    return Shot(
        file=str(image.get("file") or ""),
        name=str(image.get("name") or ""),
        truth=_table(image.get("truth")),
        answers=answers,
        scores=_numbers(image.get("scores")),
        apart=_numbers(image.get("apart")),
    )


def _renewed(image: dict[str, Any]) -> dict[str, Any]:
    """An image as runs wrote it when all of them sorted images into classes, in today's form."""
    if "answers" in image or not isinstance(image.get("logits"), dict):
        return image
    shares = {name: softmax(logits) for name, logits in image["logits"].items()}
    named = {name: found.index(max(found)) for name, found in shares.items() if found is not None}
    apart = {name: float(label != named["student"]) for name, label in named.items() if "student" in named}
    return image | {
        "truth": {"class": image.get("target")},
        "answers": {name: {"logits": logits} for name, logits in image["logits"].items()},
        "scores": {name: float(label == image.get("target")) for name, label in named.items()},
        "apart": apart,
    }


def _numbers(found: Any) -> dict[str, float]:
    read = {str(name): number(value) for name, value in _table(found).items()}
    return {name: value for name, value in read.items() if value is not None}


def _table(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}

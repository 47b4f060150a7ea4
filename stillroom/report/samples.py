"""`samples/probe.json` as values: the sample images of a run, with the predictions of all models."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from stillroom.report.format import number


@dataclass(frozen=True)
class SampleImage:
    """One image. Malformed parts of the file are missing here.

    Attributes:
        file: its picture in `samples/`.
        name: of its file or number in the data set.
        truth: ground truth: any of `class`, `boxes`, `mask`.
        predictions: model -> its prediction: any of `logits`, `boxes`, `mask`, `vector`.
        scores: model -> how correct its prediction is, in 0..1.
        distances: file -> distance of its prediction from the student's, in 0..1.
    """

    file: str
    name: str
    truth: dict[str, Any] = field(default_factory=dict)
    predictions: dict[str, dict[str, Any]] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    distances: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> int | None:
        """The true class, or None."""
        found = self.truth.get("class")
        return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


@dataclass(frozen=True)
class Box:
    """A box in shares of the image, inside of it, left < right and top < bottom."""

    left: float
    top: float
    right: float
    bottom: float
    label: int
    score: float


def read_samples(probe: dict[str, Any]) -> list[SampleImage]:
    """The images in the order of the file."""
    images = probe.get("images")
    return [_sample(image) for image in images if isinstance(image, dict)] if isinstance(images, list) else []


def softmax(logits: Any) -> list[float] | None:
    """Probabilities of logits; None unless all of them are finite numbers."""
    finite = vector(logits)
    if finite is None:
        return None
    weights = [math.exp(value - max(finite)) for value in finite]
    return [weight / sum(weights) for weight in weights]


def vector(values: Any) -> list[float] | None:
    """A list of finite numbers, at least one; else None."""
    numbers = [number(value) for value in values] if isinstance(values, list) else []
    finite = [value for value in numbers if value is not None]
    return finite if finite and len(finite) == len(numbers) else None


def boxes(rows: Any, *, min_score: float, max_boxes: int = 100) -> list[Box]:
    """The boxes with at least that score, highest first; malformed and empty boxes are left out."""
    vectors = [vector(row) for row in rows] if isinstance(rows, list) else []
    found = []
    for row in vectors:
        if row is not None and len(row) == 6 and row[4] >= 0 and row[5] >= min_score:
            left, top, right, bottom = (min(max(end, 0.0), 1.0) for end in row[:4])
            if left < right and top < bottom:
                found.append(Box(left, top, right, bottom, int(row[4]), row[5]))
    return sorted(found, key=lambda box: -box.score)[:max_boxes]


def _sample(image: dict[str, Any]) -> SampleImage:
    image = _current_format(image)
    predictions = {name: one for name, one in _table(image.get("answers")).items() if isinstance(one, dict)}
    return SampleImage(
        file=str(image.get("file") or ""),
        name=str(image.get("name") or ""),
        truth=_table(image.get("truth")),
        predictions=predictions,
        scores=_numbers(image.get("scores")),
        distances=_numbers(image.get("apart")),
    )


def _current_format(image: dict[str, Any]) -> dict[str, Any]:
    """An image in the format of the first runs, which had classification only, converted to the current one."""
    if "answers" in image or not isinstance(image.get("logits"), dict):
        return image
    probabilities = {name: softmax(logits) for name, logits in image["logits"].items()}
    labels = {name: found.index(max(found)) for name, found in probabilities.items() if found is not None}
    apart = {name: float(label != labels["student"]) for name, label in labels.items() if "student" in labels}
    return image | {
        "truth": {"class": image.get("target")},
        "answers": {name: {"logits": logits} for name, logits in image["logits"].items()},
        "scores": {name: float(label == image.get("target")) for name, label in labels.items()},
        "apart": apart,
    }


def _numbers(found: Any) -> dict[str, float]:
    values = {str(name): number(value) for name, value in _table(found).items()}
    return {name: value for name, value in values.items() if value is not None}


def _table(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}

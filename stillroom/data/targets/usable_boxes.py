"""The check of an image's annotated boxes: which can be used, and what is wrong with the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stillroom.data.errors import BoxesOfUnknownClass, BoxesOutsideImage, DegenerateBoxes, DuplicateBoxes
from stillroom.data.sources.source import BoxAnnotations
from stillroom.types import IntArray

MAX_OVERHANG = 1.0  # pixels that a box may reach beyond the image without a report: the rounding in most data sets
FAULTS = {
    "degenerate": DegenerateBoxes,
    "outside": BoxesOutsideImage,
    "duplicate": DuplicateBoxes,
    "unknown": BoxesOfUnknownClass,
}


@dataclass(frozen=True, kw_only=True)
class UsableBoxes:
    """The usable boxes of an image, clipped to it, and the faults of all its boxes.

    Attributes:
        boxes: [M, 4] float32 left, top, right, bottom relative to the image.
        labels: [M].
        crowd: [M].
        faults: [N, 4] bool for all N annotated boxes, in the order of `FAULTS`.
    """

    boxes: NDArray[np.float32]
    labels: IntArray
    crowd: NDArray[np.bool_]
    faults: NDArray[np.bool_]


def usable_boxes(annotated: BoxAnnotations, classes: int) -> UsableBoxes:
    """Separate the usable boxes from the others; K = `classes`."""
    height, width = annotated.size
    size = np.array([width, height, width, height], dtype=np.float64)
    boxes = np.nan_to_num(annotated.boxes)
    clipped = np.clip(boxes, 0, size)
    relative = (clipped / size).astype(np.float32)
    overhang = np.abs(boxes - clipped).max(axis=1, initial=0)
    flat = ~(relative[:, 2:] > relative[:, :2]).all(axis=1)  # as used: a small width may vanish in float32
    degenerate = ~np.isfinite(annotated.boxes).all(axis=1) | ~(boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    degenerate |= flat & (overhang == 0)
    outside = ~degenerate & (flat | (overhang > MAX_OVERHANG))
    unknown = (annotated.labels < 0) | (annotated.labels >= classes)
    usable = ~(degenerate | flat | unknown)
    duplicate = np.zeros(len(boxes), dtype=bool)
    seen = set()
    for row in np.flatnonzero(usable).tolist():
        identity = (int(annotated.labels[row]), bool(annotated.crowd[row]), clipped[row].tobytes())
        duplicate[row] = identity in seen
        seen.add(identity)
    usable &= ~duplicate
    return UsableBoxes(
        boxes=relative[usable],
        labels=annotated.labels[usable],
        crowd=annotated.crowd[usable],
        faults=np.stack([degenerate, outside, duplicate, unknown], axis=1),
    )

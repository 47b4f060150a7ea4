"""Images, boxes and sources of boxes made up for a test, right or wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kit.scenes import CLASSES, coco_scenes, mask_scenes, voc_scenes
from stillroom.data.sources.coco import Coco
from stillroom.data.sources.masks import Masks
from stillroom.data.sources.source import BoxAnnotations
from stillroom.data.sources.voc import Voc
from stillroom.errors import StillroomError


def picture(*files: Path, size: tuple[int, int] = (64, 64)) -> None:
    """Images of one colour."""
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (5, 99, 7)).save(file)


class Listed:
    """Photographs of noise, 40 wide and 20 high, with any boxes."""

    kind = "boxes"
    channels = 3
    splits = None

    def __init__(self, *boxes: BoxAnnotations, classes=("a", "b")):
        self.noted, self.classes = boxes, classes
        count = len(boxes)
        self.labels = np.array([int(b.labels[0]) if len(b.labels) else -1 for b in boxes], dtype=np.int64)
        third = max(1, count // 3)
        self.splits = {
            "train": np.arange(count - 2 * third),
            "val": np.arange(count - 2 * third, count - third),
            "test": np.arange(count - third, count),
        }

    def name(self, item):
        return f"photo {item}"

    def read(self, item):
        return np.random.default_rng(item).integers(0, 256, (20, 40, 3), dtype=np.uint8)

    def boxes(self, item):
        return self.noted[item]


def noted(*boxes, labels=None, crowd=None, size=(20, 40), known=True) -> BoxAnnotations:
    count = len(boxes)
    return BoxAnnotations(
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        labels=np.array(labels if labels is not None else [0] * count, dtype=np.int64),
        crowd=np.array(crowd if crowd is not None else [False] * count, dtype=bool),
        size=size,
        known=known,
    )


def source(kind: str, root: Path):
    """A source of scenes: "coco", "voc" or "masks"."""
    if kind == "masks":
        return Masks(path=str(mask_scenes(root)))
    return Coco(path=str(coco_scenes(root))) if kind == "coco" else Voc(path=str(voc_scenes(root)), classes=CLASSES)


def codes(findings) -> list[str]:
    """The codes of what was found, in order."""
    return [finding.code for finding in findings]


def only(findings, code: str) -> StillroomError:
    """The one finding of that code."""
    (found,) = [finding for finding in findings if finding.code == code]
    return found.failure


def code(call) -> str:
    """The code that a call is refused with."""
    return _refused(call).code


def why(call) -> str:
    """Why a call is refused."""
    return _refused(call).why


def _refused(call) -> StillroomError:
    with pytest.raises(StillroomError) as caught:
        call()
    return caught.value

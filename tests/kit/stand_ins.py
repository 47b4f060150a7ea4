"""The smallest tasks that can be: what `SampleGallery` asks a task for, without what trains or measures one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stillroom.types import Batch, Output


class Logits:
    """Classes; right or wrong."""

    def score_per_image(self, answer: Output, batch: Batch) -> Tensor:
        return (answer.pred.argmax(1) == batch.target).float()

    def agreement_per_image(self, answer: Output, other: Output) -> Tensor:
        return (answer.pred.argmax(1) == other.pred.argmax(1)).float()

    def drawable(self, answer: Output, row: int) -> Mapping[str, Any]:
        return {"logits": answer.pred[row].tolist()}

    def drawable_target(self, batch: Batch, row: int) -> Mapping[str, Any]:
        return {"class": int(batch.target[row])}


class Boxes:
    """Answers and truth [B, M, 6]: left, top, right, bottom in shares, score, class; right: the share of true boxes
    that have an answer of their class at overlap 0.5, less half the share of answers too many.

    Args:
        side: of the images in pixels; sketches of answers are in these.
    """

    def __init__(self, side: int):
        self.side = side

    def score_per_image(self, answer: Output, batch: Batch) -> Tensor:
        return torch.stack([_found(a, b) for a, b in zip(answer.pred, batch.target, strict=True)])

    def agreement_per_image(self, answer: Output, other: Output) -> Tensor:
        return torch.stack([_found(a, b) for a, b in zip(answer.pred, other.pred, strict=True)])

    def drawable(self, answer: Output, row: int) -> Mapping[str, Any]:
        return {"boxes": self._rows(answer.pred[row], self.side)}

    def drawable_target(self, batch: Batch, row: int) -> Mapping[str, Any]:
        return {"boxes": self._rows(batch.target[row], 1)}

    @staticmethod
    def _rows(rows: Tensor, side: int) -> list[list[float]]:
        scaled = torch.cat((rows[:, :4].double() * side, rows[:, 5:], rows[:, 4:5]), 1)
        found: list[list[float]] = scaled[rows[:, 5] >= 0].tolist()
        return found


class Masks:
    """Class maps [B, H, W], -1 for void; right: the share of known pixels."""

    def score_per_image(self, answer: Output, batch: Batch) -> Tensor:
        known = batch.target >= 0
        return ((answer.pred == batch.target) & known).sum((1, 2)) / known.sum((1, 2)).clamp(min=1)

    def agreement_per_image(self, answer: Output, other: Output) -> Tensor:
        return (answer.pred == other.pred).float().mean((1, 2))

    def drawable(self, answer: Output, row: int) -> Mapping[str, Any]:
        return {"mask": answer.pred[row].to(torch.uint8)}

    def drawable_target(self, batch: Batch, row: int) -> Mapping[str, Any]:
        return {"mask": batch.target[row].remainder(256).to(torch.uint8)}


class Vectors:
    """Vectors [B, D]; no image alone can be right."""

    def score_per_image(self, answer: Output, batch: Batch) -> Tensor:
        return torch.zeros(len(batch))

    def agreement_per_image(self, answer: Output, other: Output) -> Tensor:
        return torch.cosine_similarity(answer.pred, other.pred).clamp(0, 1)

    def drawable(self, answer: Output, row: int) -> Mapping[str, Any]:
        return {"vector": answer.pred[row].tolist()}

    def drawable_target(self, batch: Batch, row: int) -> Mapping[str, Any]:
        return {"class": int(batch.target[row])}


def _found(rows: Tensor, true: Tensor) -> Tensor:
    rows, true = rows[(rows[:, 5] >= 0) & (rows[:, 4] >= 0.3)], true[true[:, 5] >= 0]
    if not len(true) or not len(rows):
        return torch.tensor(float(len(true) == len(rows)))
    near = torch.maximum(rows[:, None, :2], true[None, :, :2])
    far = torch.minimum(rows[:, None, 2:4], true[None, :, 2:4])
    shared = (far - near).clamp(min=0).prod(2)
    sizes = [(part[:, 2:4] - part[:, :2]).prod(1) for part in (rows, true)]
    hits = (shared / (sizes[0][:, None] + sizes[1] - shared) >= 0.5) & (rows[:, None, 5] == true[:, 5])
    return (hits.any(0).float().mean() - 0.5 * (~hits.any(1)).float().mean()).clamp(min=0)

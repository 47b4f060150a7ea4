"""The facts that every exported file holds, so that the file alone is enough to use it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from stillroom.tasks.task import Task
    from stillroom.types import OutputKind

OUTPUTS: dict[OutputKind, tuple[str, str]] = {
    "classes": ("logits", "float32 [B, {classes}]"),
    "pixels": ("logits", "float32 [B, {classes}, H, W]"),
    "boxes": (
        "boxes",
        "float32 [B, M, 6]: left, top, right, bottom in pixels of the image given, score 0..1, class; -1 is no box",
    ),
    "vector": ("vector", "float32 [B, D], of length 1"),
}
"""Kind of answers -> the name of the file's output, and what is in it."""


def facts(
    *, classes: tuple[str, ...], example: Tensor, task: Task | None, bits: int, any_size: bool | None = None
) -> dict[str, str]:
    """Name -> text.

    Args:
        classes: names in label order.
        example: [B, C, H, W], an image of the right shape.
        task: what the answers mean; None: logits of a classifier.
        bits: 32 for floats.
        any_size: whether the file takes images of any height and width; None: as the task allows.
    """
    channels, height, width = shape(example)
    order = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    any_size = bool(task and task.any_size) if any_size is None else any_size
    sides = "H, W" if any_size else f"{height}, {width}"
    answers: OutputKind = task.output_kind if task else "classes"
    name, output = OUTPUTS[answers]
    return {
        "classes": json.dumps(list(classes), ensure_ascii=False),
        "input": f"images: float32 [B, {channels}, {sides}], {order}, 0..1; normalisation is inside",
        "output": f"{name}: {output.format(classes=len(classes))}",
        "answers": answers,
        "bits": str(bits),
    } | ({"task": _name(task)} if task else {})


def _name(task: Task) -> str:
    """Of the task itself, whatever it is wrapped in."""
    while inner := getattr(task, "__dict__", {}).get("task"):
        task = inner
    return type(task).__name__.lower()


def one_image(found: dict[str, str]) -> dict[str, str]:
    """The same of a file that takes one image a call."""
    return found | {name: found[name].replace("[B,", "[1,") for name in ("input", "output")}


def shape(example: Tensor) -> tuple[int, int, int]:
    """(C, H, W) of one image of the example."""
    if example.dim() != 4:
        raise ValueError(f"an example is [B, C, H, W], got {list(example.shape)}")
    channels, height, width = example.shape[1:]
    return channels, height, width

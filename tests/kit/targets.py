"""What is known of boxes, and what a detector might say of them, made up for tests."""

from __future__ import annotations

import torch
from torch import Tensor


def known(*images, crowd=(), unknown=()) -> dict[str, Tensor]:
    """A target out of lists of (left, top, right, bottom, class), one list an image.

    `crowd` holds (image, box) numbers, `unknown` numbers of images.
    """
    most = max(map(len, images), default=0)
    boxes, labels = torch.zeros(len(images), most, 4), torch.full((len(images), most), -1)
    for row, image in enumerate(images):
        for column, (*sides, label) in enumerate(image):
            boxes[row, column], labels[row, column] = torch.tensor(sides), label
    crowds = torch.zeros(labels.shape, dtype=torch.bool)
    for row, column in crowd:
        crowds[row, column] = True
    looked = torch.tensor([row not in unknown for row in range(len(images))], dtype=torch.bool)
    size = torch.full((len(images), 2), 64)
    return {"boxes": boxes, "labels": labels, "crowd": crowds, "size": size, "known": looked}


def drawn_boxes(*shape, seed=0, least=0.05, most=0.5) -> Tensor:
    """[*shape, 4] boxes inside the image with sides between `least` and `most`."""
    draw = torch.Generator().manual_seed(seed)
    side = least + (most - least) * torch.rand(*shape, 2, generator=draw)
    low = torch.rand(*shape, 2, generator=draw) * (1 - side)
    return torch.cat((low, low + side), -1)


def drawn_pred(images, places, classes, seed=0) -> Tensor:
    """[B, A, 4 + K] what a detector in the middle of its training might say."""
    draw = torch.Generator().manual_seed(seed + 1)
    logits = torch.randn(images, places, classes, generator=draw) - 2
    return torch.cat((drawn_boxes(images, places, seed=seed), logits), -1)


def drawn_target(images, most, classes, seed=0) -> dict[str, Tensor]:
    """Up to `most` boxes an image, in turn more and fewer; with more than two images one has none."""
    draw = torch.Generator().manual_seed(seed + 2)
    counts = [(most - row) % (most + 1) for row in range(images)]
    found = drawn_boxes(images, max(most, 1), seed=seed + 3, least=0.1)
    labels = torch.randint(0, classes, (images, max(most, 1)), generator=draw)
    rows = [[(*found[b, m].tolist(), int(labels[b, m])) for m in range(count)] for b, count in enumerate(counts)]
    return known(*rows)

"""Real digit scans written as image files, in class folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def digit_folders(root: Path, *, each: int = 12, side: int = 16, classes: int = 10, suffix: str = "png") -> Path:
    """`root/0/00.png ...`: the first `each` scans of every digit, enlarged to `side` pixels."""
    images, labels = load_digits(return_X_y=True)
    for label in range(classes):
        folder = root / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        for number, row in enumerate(images[labels == label][:each]):
            scan = Image.fromarray((row.reshape(8, 8) * 255 / 16).astype(np.uint8))
            scan.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number:02}.{suffix}")
    return root


def flat_digits(root: Path, *, count: int = 120, start: int = 0, side: int = 8) -> Path:
    """`root/0000.png ...`: digit scans in their own order, all in one folder; nobody says which digit is which."""
    root.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(load_digits(return_X_y=True)[0][start : start + count], start):
        scan = Image.fromarray((row.reshape(8, 8) * 255 / 16).astype(np.uint8))
        scan.resize((side, side), Image.Resampling.BICUBIC).save(root / f"{number:04}.png")
    return root

"""The training images, decoded once into one array that every contestant reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stillroom.data import decode
from stillroom.data.sources.parquet import Parquet
from stillroom.data.threads import thread_map

OTHERS = 1000  # test images that stand in for the val and the test split; nothing that is timed looks at them


def prepare(data: Path, folder: Path, most: int | None) -> int:
    """Write the arrays, if they are not there, of `most` training images; how many there are."""
    if not (folder / "labels.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        source = Parquet(path=str(data))
        items = np.concatenate([source.splits["train"][:most], source.splits["test"][: 2 * OTHERS]])
        pixels = thread_map(lambda item: decode.to_pixels(source.read(item), channels=3), items.tolist())
        np.save(folder / "images.npy", np.stack(pixels))
        np.save(folder / "labels.npy", source.labels[items])
    return len(np.load(folder / "labels.npy", mmap_mode="r")) - 2 * OTHERS


def arrays(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The training images uint8 [N, H, W, C] and their labels [N]."""
    images, labels = (np.load(Path(folder) / f"{name}.npy") for name in ("images", "labels"))
    return images[: -2 * OTHERS], labels[: -2 * OTHERS]


class Decoded:
    """The arrays as a source of recipes."""

    channels = 3

    def __init__(self, *, path: str):
        self._images, labels = (np.load(Path(path) / f"{name}.npy") for name in ("images", "labels"))
        self.labels = labels.astype(np.int64)
        self.classes = tuple(str(label) for label in range(int(labels.max()) + 1))
        ends = np.split(np.arange(len(labels)), [len(labels) - 2 * OTHERS, len(labels) - OTHERS])
        self.splits = dict(zip(("train", "val", "test"), ends, strict=True))

    def name(self, item: int) -> str:
        return f"images.npy[{item}]"

    def read(self, item: int) -> np.ndarray:
        return self._images[item]


class Pictures:
    """The arrays as torchvision's CIFAR10 gives its own: in memory, each image a Pillow image for the transform."""

    def __init__(self, folder: str, transform: Callable[[Image.Image], Any] | None = None):
        self.transform = transform
        self.images, labels = arrays(Path(folder))
        self.labels = labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.images[index])
        return (self.transform(image) if self.transform else image), self.labels[index]

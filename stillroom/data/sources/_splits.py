"""What a folder or file calls a split."""

from __future__ import annotations

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
ORDER = ("train", "val", "test")
